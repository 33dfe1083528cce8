package ws

import (
	"reflect"
	"strings"
)

// Schema describes the messages that a Manager exchanges with its clients: the events that it
// handles, and the events and errors that it sends. Immutable.
type Schema struct {
	Handlers []HandlerInfo // sorted by Event
	Events   []EventInfo   // of DefineEvent, sorted by Event
	Errors   []ErrorInfo   // of DefineError, sorted by Name
}

// HandlerInfo describes the handler of one event. Immutable.
type HandlerInfo struct {
	Event    string
	Request  reflect.Type // of the request's data; nil for HandleOnly and Register
	Response reflect.Type // of the response's data; nil for Handle0 and Register
	Doc      string       // see Doc
}

// EventInfo describes one event that the server sends. Immutable.
type EventInfo struct {
	Event string
	Data  reflect.Type
}

// ErrorInfo describes one kind of error that handlers answer with. Immutable.
type ErrorInfo struct {
	Name string
	Code int
}

// Describe returns the events that m handles now, and the events and errors that are defined
// now, for documents and for generators of clients, such as package schema. The library's own
// events, whose names begin with "ws.", are left out.
func Describe(m *Manager) Schema {
	var s Schema
	for _, r := range m.Router.routes.Routes() {
		if !strings.HasPrefix(r.Event, reservedPrefix) {
			s.Handlers = append(s.Handlers, HandlerInfo{r.Event, r.Request, r.Response, r.Doc})
		}
	}
	s.Events, s.Errors = m.definitions.describe()
	return s
}
