package envelope

// findRequestID returns the request_id of an invalid envelope, so that its answer can name
// it, or nil. It looks for the key in the outermost object, however wrong the text beside it
// is, and takes a string or the text of a number. It does not recurse.
func findRequestID(b []byte) []byte {
	s := scanner{b: b}
	for depth := 0; s.i < len(b); {
		switch b[s.i] {
		case '"':
			start := s.i
			if !s.skipString() {
				return nil
			}
			if depth != 1 || string(b[start:s.i]) != `"request_id"` {
				continue
			}
			s.space()
			if s.next(':') {
				s.space()
				return s.requestID()
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.i++
	}
	return nil
}

// skipString steps over a string, whatever it contains, and reports whether it ends.
func (s *scanner) skipString() bool {
	s.i++
	for {
		s.plain()
		switch s.peek() {
		case '"':
			s.i++
			return true
		case '\\':
			s.i++
		}
		if s.i >= len(s.b) {
			return false
		}
		s.i++
	}
}

// requestID reads the value of an invalid envelope's request_id.
func (s *scanner) requestID() (id []byte) {
	start := s.i
	if s.peek() != '"' {
		if s.number() {
			id = s.b[start:s.i]
		}
	} else if _, ok := s.string(); ok && s.i-start <= 6*MaxRequestID+2 {
		id = appendUnescaped(nil, s.b[start+1:s.i-1])
	}
	if len(id) > MaxRequestID {
		return nil
	}
	return id
}
