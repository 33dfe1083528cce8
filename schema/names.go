package schema

import (
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// reservedNames are names that the output has for itself.
var reservedNames = map[string]bool{"API": true}

// nameDefinitions gives each definition a name of its own: the name of its type, with the name of its
// package in front if several packages have the name, and with a number if that is not enough.
func nameDefinitions(definitions []*definition) {
	uses := make(map[string]int)
	for _, d := range definitions {
		uses[typeName(d.typ.Name())]++
	}
	taken := make(map[string]bool)
	for name := range reservedNames {
		taken[name] = true
	}
	for _, d := range definitions {
		if name := typeName(d.typ.Name()); uses[name] == 1 && !taken[name] {
			d.name, taken[name] = name, true
		}
	}
	for _, d := range definitions {
		if d.name == "" {
			d.name = unique(packageName(d.typ.PkgPath())+typeName(d.typ.Name()), taken)
		}
	}
}

// unique returns name, with a number if it is taken, and takes it.
func unique(name string, taken map[string]bool) string {
	free := name
	for n := 2; taken[free]; n++ {
		free = name + strconv.Itoa(n)
	}
	taken[free] = true
	return free
}

// typeName returns a name for the type that reflect calls name: Page[example.com/shop.Item] is
// PageOfItem.
func typeName(name string) string {
	base, args, generic := strings.Cut(name, "[")
	base, _, _ = strings.Cut(base, "·") // of a type in a function
	base = words(base)
	if !generic {
		return base
	}
	var names []string
	for _, arg := range splitArguments(strings.TrimSuffix(args, "]")) {
		names = append(names, argumentName(arg))
	}
	return base + "Of" + strings.Join(names, "And")
}

// splitArguments splits the arguments of a generic type at the commas between them.
func splitArguments(args string) (split []string) {
	depth, from := 0, 0
	for i, c := range args {
		switch c {
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			depth--
		case ',':
			if depth == 0 {
				split = append(split, args[from:i])
				from = i + 1
			}
		}
	}
	return append(split, args[from:])
}

// argumentName returns a name for an argument of a generic type.
func argumentName(arg string) string {
	arg = strings.TrimSpace(arg)
	switch {
	case strings.HasPrefix(arg, "*"):
		return argumentName(arg[1:])
	case arg == "interface {}":
		return "Any"
	case strings.HasPrefix(arg, "struct {"):
		return "Struct"
	case strings.HasPrefix(arg, "map["):
		key := splitBracket(arg[len("map["):])
		return "MapOf" + argumentName(key) + "To" + argumentName(arg[len("map[]")+len(key):])
	case strings.HasPrefix(arg, "["):
		length := splitBracket(arg[1:])
		return argumentName(arg[len("[]")+len(length):]) + "List"
	}
	qualified, rest, generic := strings.Cut(arg, "[")
	qualified = qualified[strings.LastIndexByte(qualified, '/')+1:]
	if _, name, ok := strings.Cut(qualified, "."); ok {
		qualified = name
	}
	if generic {
		qualified += "[" + rest
	}
	return typeName(qualified)
}

// splitBracket returns the part of s before the bracket that closes the first one.
func splitBracket(s string) string {
	depth := 0
	for i, c := range s {
		switch {
		case c == '[':
			depth++
		case c == ']' && depth == 0:
			return s[:i]
		case c == ']':
			depth--
		}
	}
	return s
}

// majorVersion is the last element of the path of a module of a later major version.
var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// packageName returns a name for a package, to stand before the name of a type.
func packageName(pkgPath string) string {
	dir, last := path.Split(pkgPath)
	if majorVersion.MatchString(last) && dir != "" {
		last = path.Base(dir)
	}
	return words(last)
}

// words returns the words of s without the characters between them, each with a capital letter.
func words(s string) string {
	var b strings.Builder
	start := true
	for _, c := range s {
		switch {
		case c == '_' && b.Len() == 0: // a name may begin so
			b.WriteRune(c)
		case !unicode.IsLetter(c) && !unicode.IsDigit(c):
			start = true
		case start:
			b.WriteRune(unicode.ToUpper(c))
			start = false
		default:
			b.WriteRune(c)
		}
	}
	if first, _ := utf8.DecodeRuneInString(b.String()); !unicode.IsLetter(first) && first != '_' {
		return "_" + b.String()
	}
	return b.String()
}

func isIdentifier(name string) bool { return token.IsIdentifier(name) && name != "_" }
