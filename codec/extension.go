package codec

import "strings"

// extension is one element of a Sec-WebSocket-Extensions header. Immutable after New.
type extension struct {
	name   string
	params []extensionParam
}

// extensionParam is a parameter of an extension. Immutable after New.
type extensionParam struct {
	name, value string
	hasValue    bool
}

// parseExtensions reads a list of extensions (RFC 6455 section 9.1). ok is false for a malformed
// list. parseExtensions skips empty elements (RFC 9110 section 5.6.1.2).
func parseExtensions(s string) (list []extension, ok bool) {
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return list, true
		}
		var e extension
		if e.name, s = cutToken(s); e.name == "" {
			return nil, false
		}
		for s = strings.TrimLeft(s, " \t"); strings.HasPrefix(s, ";"); s = strings.TrimLeft(s, " \t") {
			var p extensionParam
			if p, s, ok = cutParam(strings.TrimLeft(s[1:], " \t")); !ok {
				return nil, false
			}
			e.params = append(e.params, p)
		}
		if s != "" && s[0] != ',' {
			return nil, false
		}
		list = append(list, e)
	}
}

// cutParam reads the parameter at the start of s.
func cutParam(s string) (p extensionParam, rest string, ok bool) {
	if p.name, s = cutToken(s); p.name == "" {
		return p, s, false
	}
	after := strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(after, "=") {
		return p, s, true
	}
	p.hasValue = true
	s = strings.TrimLeft(after[1:], " \t")
	if strings.HasPrefix(s, `"`) { // the value without quotes must be a token (RFC 6455 section 9.1)
		p.value, rest, ok = cutQuoted(s[1:])
		return p, rest, ok && IsToken(p.value)
	}
	p.value, s = cutToken(s)
	return p, s, p.value != ""
}

// cutQuoted returns the value of the quoted string whose opening quote precedes s, and the rest
// of s behind the closing quote. A backslash quotes one character (RFC 9110 section 5.6.4).
func cutQuoted(s string) (value, rest string, ok bool) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return string(b), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b = append(b, s[i])
	}
	return "", s, false
}

// cutToken returns the token at the start of s, and the rest of s.
func cutToken(s string) (token, rest string) {
	n := 0
	for n < len(s) && isToken(s[n]) {
		n++
	}
	return s[:n], s[n:]
}
