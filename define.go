package ws

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// reservedPrefix begins the names of the library's own events and errors.
const reservedPrefix = "ws."

// TypedEvent is an event that the server sends to clients, with the type of its data. DefineEvent
// returns one; the zero value is not valid. Safe for concurrent use.
type TypedEvent[T any] struct {
	manager *Manager
	name    string
}

// Name returns the name of the event, as clients read it.
func (e TypedEvent[T]) Name() string { return e.name }

// DefineEvent declares that m sends events of this name to clients, with data of type T, and
// returns the event to publish them with. Describe lists it, and package schema generates its
// type for clients. Events may be defined at any time, also after Router.Freeze; to define one
// again with the same type has no effect.
//
// It panics if the name is empty, begins with "ws.", which the library keeps for its own
// events, or belongs to an event of another type.
func DefineEvent[T any](m *Manager, name string) TypedEvent[T] {
	m.definitions.addEvent(name, reflect.TypeFor[T]())
	return TypedEvent[T]{m, name}
}

// ErrorKind is a code of an application's error responses, with a name. DefineError returns
// one. Immutable.
type ErrorKind struct {
	code int
	name string
}

// DefineError declares that handlers of m answer with errors of this code, under a name for
// clients and readers of the code. Describe lists it; the name is not sent. To define an
// error again has no effect.
//
//	tooFast := ws.DefineError(m, 4290, "tooFast")
//	...
//	return nil, tooFast.New("wait a second")
//
// It panics if the code is not positive, if the name is empty or begins with "ws.", or if the
// name has another code or the code another name.
func DefineError(m *Manager, code int, name string) ErrorKind {
	m.definitions.addError(code, name)
	return ErrorKind{code, name}
}

// Code returns the code that clients read.
func (k ErrorKind) Code() int { return k.code }

// Name returns the name of the error.
func (k ErrorKind) Name() string { return k.name }

// New returns a new error with the kind's code, for a handler to return.
func (k ErrorKind) New(message string) *ClientError { return NewClientError(k.code, message) }

// definitions holds the events and errors that a manager sends. Safe for concurrent use.
type definitions struct {
	mu     sync.Mutex
	events map[string]reflect.Type
	errors map[string]int // codes by name
}

func (d *definitions) addEvent(name string, data reflect.Type) {
	checkName("DefineEvent", name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.events[name]; ok && old != data {
		panic(fmt.Sprintf("ws: DefineEvent(%q): it has data of type %v, not %v", name, old, data))
	}
	if d.events == nil {
		d.events = make(map[string]reflect.Type)
	}
	d.events[name] = data
}

func (d *definitions) addError(code int, name string) {
	checkName("DefineError", name)
	if code <= 0 {
		panic(fmt.Sprintf("ws: DefineError(%q): code %d is not positive", name, code))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.errors[name]; ok && old != code {
		panic(fmt.Sprintf("ws: DefineError(%q): it has code %d, not %d", name, old, code))
	}
	for other, taken := range d.errors {
		if taken == code && other != name {
			panic(fmt.Sprintf("ws: DefineError(%q): code %d belongs to %q", name, code, other))
		}
	}
	if d.errors == nil {
		d.errors = make(map[string]int)
	}
	d.errors[name] = code
}

// describe returns the events and errors, sorted by name.
func (d *definitions) describe() (events []EventInfo, errors []ErrorInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.events)) {
		events = append(events, EventInfo{name, d.events[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(d.errors)) {
		errors = append(errors, ErrorInfo{name, d.errors[name]})
	}
	return events, errors
}

// checkName panics if an application may not define name.
func checkName(function, name string) {
	switch {
	case name == "":
		panic("ws: " + function + ": empty name")
	case strings.HasPrefix(name, reservedPrefix):
		panic(fmt.Sprintf("ws: %s(%q): names with the prefix %q belong to the library", function, name, reservedPrefix))
	}
}
