package ws_test

import (
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unclear are phrases that readers stumble over: each has a plainer form (a noun that
// names the thing, "reports" for programs, a sentence of its own).
var unclear = regexp.MustCompile(`(?i)\b(?:(?:is|are|was|were) (?:what|who)|so many|of which|that of|tells?)\b`)

var (
	what     = regexp.MustCompile(`(?i)\bwhat\b`)
	question = regexp.MustCompile(`(?i)\bwhat\b[^.;:]*\?`)
)

// maxWhats is the number of "what" as a noun that 1,000 words may have.
const maxWhats = 1

// prose is the text of a folder's Go files, or of a document.
type prose struct {
	words, whats int
	places       []string // of "what"
}

// note counts the words of text, and reports its unclear phrases.
func (p *prose) note(t *testing.T, place, text string) {
	t.Helper()
	text = strings.Join(strings.Fields(text), " ")
	p.words += strings.Count(text, " ") + 1
	for _, at := range unclear.FindAllStringIndex(text, -1) {
		assert.Fail(t, "unclear phrase", "%s: ...%s...", place, text[max(0, at[0]-40):min(len(text), at[1]+40)])
	}
	if n := len(what.FindAllString(text, -1)) - len(question.FindAllString(text, -1)); n > 0 {
		p.whats += n
		p.places = append(p.places, fmt.Sprintf("%s: %s", place, text))
	}
}

func (p *prose) check(t *testing.T) {
	t.Helper()
	assert.LessOrEqual(t, p.whats*1000, max(p.words, 1000)*maxWhats,
		"%d in %d words:\n%s", p.whats, p.words, strings.Join(p.places, "\n"))
}

// eachFile calls fn for each file of the repository with that suffix.
func eachFile(t *testing.T, suffix string, fn func(path string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case path == ".":
		case d.IsDir() && (strings.HasPrefix(name, ".") && name != ".ci" || name == "node_modules" || name == "artifacts"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, suffix):
			fn(path)
		}
		return nil
	}))
}

// TestLanguageOfCode holds the comments and texts of each folder to plain language.
func TestLanguageOfCode(t *testing.T) {
	folders := make(map[string]*prose)
	eachFile(t, ".go", func(path string) {
		folder := filepath.Dir(path)
		if folders[folder] == nil {
			folders[folder] = new(prose)
		}
		for line, text := range texts(t, path) {
			folders[folder].note(t, fmt.Sprintf("%s:%d", path, line), text)
		}
	})
	require.NotEmpty(t, folders)
	for folder, p := range folders {
		t.Run(folder, p.check)
	}
}

// texts returns the comments and the string literals of a Go file by their first lines;
// comments on lines that follow each other are one. Literals without a space are names,
// and those in back quotes are code.
func texts(t *testing.T, path string) map[int]string {
	t.Helper()
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	files := token.NewFileSet()
	file := files.AddFile(path, -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, scanner.ScanComments)
	found := make(map[int]string)
	first, last := 0, -1
	for {
		pos, tok, text := s.Scan()
		line := file.Line(pos)
		switch {
		case tok == token.EOF:
			return found
		case tok == token.STRING && text[0] == '"' && strings.Contains(text, " "):
			found[line] += " " + text
		case tok == token.COMMENT && !strings.HasPrefix(text, "//go:") && !strings.HasPrefix(text, "//nolint"):
			if line != last+1 {
				first = line
			}
			last = line + strings.Count(text, "\n")
			found[first] += " " + strings.Trim(text, "/*")
		}
	}
}

var (
	codeBlock = regexp.MustCompile("(?s)```.*?```")
	code      = regexp.MustCompile("`[^`]*`")
)

// TestLanguageOfDocuments holds the documents to plain language.
func TestLanguageOfDocuments(t *testing.T) {
	eachFile(t, ".md", func(path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		t.Run(path, func(t *testing.T) {
			var p prose
			blank := func(b []byte) []byte { return regexp.MustCompile(`[^\n]`).ReplaceAll(b, nil) }
			text = code.ReplaceAll(codeBlock.ReplaceAllFunc(text, blank), nil)
			line := 1
			for _, paragraph := range strings.SplitAfter(string(text), "\n\n") {
				p.note(t, fmt.Sprintf("%s:%d", path, line), paragraph)
				line += strings.Count(paragraph, "\n")
			}
			p.check(t)
		})
	})
}
