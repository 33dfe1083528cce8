package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the tables of documents as Markdown.
func Markdown(w io.Writer, docs ...*Document) error {
	var b strings.Builder
	for _, d := range docs {
		fmt.Fprintf(&b, "    %s\n\n", d.CommandLine)
		for _, line := range append(d.Machine.Lines(), "started "+d.Started.Format(timeFormat)) {
			fmt.Fprintf(&b, "%s  \n", escapeMarkdown(line))
		}
		for _, t := range d.Tables {
			t.markdown(&b)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const timeFormat = "2006-01-02 15:04:05 MST"

func (t *Table) markdown(b *strings.Builder) {
	if t.ChartsOnly {
		return
	}
	fmt.Fprintf(b, "\n**%s**\n\n", escapeMarkdown(t.Title))
	var heads, rules []string
	columns := t.visible()
	for _, i := range columns {
		heads = append(heads, escapeMarkdown(t.Columns[i].Heading))
		rule := "---"
		if t.numeric(i) {
			rule = "---:"
		}
		rules = append(rules, rule)
	}
	fmt.Fprintf(b, "| %s |\n| %s |\n", strings.Join(heads, " | "), strings.Join(rules, " | "))
	for row := range t.Rows {
		var cells []string
		for _, i := range columns {
			cells = append(cells, escapeMarkdown(t.Columns[i].Text(t.cell(row, i))))
		}
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
	for _, note := range t.Notes {
		fmt.Fprintf(b, "\n%s\n", escapeMarkdown(note))
	}
}

var markdownEscaper = strings.NewReplacer(
	"\\", "\\\\", "|", "\\|", "*", "\\*", "_", "\\_", "`", "\\`", "<", "&lt;", "&", "&amp;", "[", "\\[", "\r", " ",
	"\n", " ",
)

// escapeMarkdown makes s plain text in one line.
func escapeMarkdown(s string) string { return markdownEscaper.Replace(s) }
