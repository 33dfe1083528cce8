package envelope

// findRequestID returns the request_id of an invalid envelope for its answer, or nil. It looks
// for the key in the outermost object, whose other parts may be faulty. It takes a string or
// the text of a number. It does not recurse.
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

// skipString steps over a string, which may contain any bytes, and reports whether it ends.
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

// requestID reads the value of the request_id of an invalid envelope.
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
