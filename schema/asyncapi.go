package schema

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/qi-realtime/ws"
)

// object is an object of a JSON document.
type object = map[string]any

// AsyncAPI writes an AsyncAPI 3.0 document of s to w, as JSON: one channel, an operation for
// each handler (with its reply) and each event, and the messages with their whole envelope. It
// returns an error for a type whose JSON is unknown, or that has no JSON; see As.
func AsyncAPI(w io.Writer, s ws.Schema, opts ...Option) error {
	m, err := newModel(s, opts)
	if err != nil {
		return err
	}
	doc := newAsyncAPI(m)
	for _, r := range m.routes {
		doc.route(r)
	}
	for _, e := range m.events {
		doc.event(e)
	}
	for _, d := range m.definitions {
		doc.schemas[doc.schemaKeys[d]] = described(schemaOf(d.body, doc.schemaKeys), d.doc)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(doc.whole(m))
}

// asyncAPI is a document that is being made. Not safe for concurrent use.
type asyncAPI struct {
	channel    object // the messages of the one channel
	operations object
	messages   object
	schemas    object
	schemaKeys map[*definition]string
	taken      map[string]bool // keys of messages and operations
}

func newAsyncAPI(m *model) *asyncAPI {
	a := &asyncAPI{
		channel: object{}, operations: object{}, messages: object{}, schemas: object{},
		schemaKeys: make(map[*definition]string), taken: make(map[string]bool),
	}
	taken := make(map[string]bool)
	for _, d := range m.definitions {
		a.schemaKeys[d] = unique(componentKey(d.name), taken)
	}
	if len(m.routes) > 0 {
		code := object{"type": "integer"}
		var known []string
		for _, e := range m.errors {
			known = append(known, fmt.Sprintf("%d %s", e.Code, e.Name))
		}
		if known != nil {
			code["description"] = "Of the application: " + strings.Join(known, ", ") + ". Other codes are those of HTTP."
		}
		a.message("error", "error", "The answer to a request that fails.", reply("error", code), nil)
	}
	return a
}

// componentKey returns name in the characters that the keys of components may have.
func componentKey(name string) string {
	return regexp.MustCompile(`[^A-Za-z0-9._-]`).ReplaceAllString(name, "_")
}

func reference(parts ...string) object { return object{"$ref": "#/" + strings.Join(parts, "/")} }

// message adds a message with these members of its envelope, and data unless that is nil. It
// returns a reference to it.
func (a *asyncAPI) message(key, name, summary string, members object, data *shape) object {
	key = unique(componentKey(key), a.taken)
	required := []string{"type"}
	for _, member := range []string{"event", "request_id", "code", "message"} {
		if members[member] != nil {
			required = append(required, member)
		}
	}
	if data != nil {
		members["data"] = schemaOf(data, a.schemaKeys)
		required = append(required, "data")
	}
	members["timestamp"] = object{"type": "integer", "description": "Unix seconds."}
	message := object{
		"name": name, "payload": object{"type": "object", "properties": members, "required": required},
	}
	if summary != "" {
		message["summary"] = summary
	}
	a.messages[key] = message
	a.channel[key] = reference("components", "messages", key)
	return reference("channels", "websocket", "messages", key)
}

// reply returns the envelope of an answer.
func reply(kind string, code object) object {
	text := object{"type": "string"}
	return object{"type": object{"const": kind}, "request_id": text, "code": code, "message": text, "trace_id": text}
}

func (a *asyncAPI) operation(key, action, summary string, messages ...any) object {
	o := object{"action": action, "channel": reference("channels", "websocket"), "messages": messages}
	if summary != "" {
		o["summary"] = summary
	}
	a.operations[unique(componentKey(key), a.taken)] = o
	return o
}

func (a *asyncAPI) route(r route) {
	request := a.message(r.name+".request", r.name, r.doc, object{
		"type": object{"const": "request"}, "event": object{"const": r.name}, "request_id": object{"type": "string"},
	}, r.request)
	response := a.message(r.name+".response", r.name, "", reply("response", object{"const": 200}), r.response)
	o := a.operation("receive."+r.name, "receive", r.doc, request)
	o["reply"] = object{
		"channel":  reference("channels", "websocket"),
		"messages": []any{response, reference("channels", "websocket", "messages", "error")},
	}
}

func (a *asyncAPI) event(e event) {
	offset := object{"type": "integer", "minimum": 1}
	a.operation("send."+e.name, "send", "", a.message(e.name+".event", e.name, "", object{
		"type": object{"const": "notify"}, "event": object{"const": e.name},
		"room": object{"type": "string"}, "offset": offset, "prev": offset,
	}, e.data))
}

// whole returns the document.
func (a *asyncAPI) whole(m *model) object {
	return object{
		"asyncapi":           "3.0.0",
		"info":               object{"title": m.settings.title, "version": m.settings.version},
		"defaultContentType": "application/json",
		"channels":           object{"websocket": object{"address": "/", "messages": a.channel}},
		"operations":         a.operations,
		"components":         object{"messages": a.messages, "schemas": a.schemas},
	}
}

// described returns schema with a description, unless that is empty.
func described(schema object, texts ...string) object {
	text := strings.TrimSpace(strings.Join(texts, "\n"))
	switch {
	case text == "":
		return schema
	case schema["$ref"] != nil: // which permits no siblings
		return object{"allOf": []any{schema}, "description": text}
	}
	if remark, ok := schema["description"].(string); ok {
		text += "\n" + remark
	}
	schema["description"] = text
	return schema
}

// schemaOf returns the JSON schema of s.
func schemaOf(s *shape, keys map[*definition]string) object {
	schema := bareSchema(s, keys)
	if !s.nullable || s.kind == kindUnknown {
		return schema
	}
	if kind, ok := schema["type"].(string); ok {
		schema["type"] = []string{kind, "null"}
		return schema
	}
	return object{"anyOf": []any{schema, object{"type": "null"}}}
}

// bareSchema returns the JSON schema of the values of s other than null.
func bareSchema(s *shape, keys map[*definition]string) object {
	switch s.kind {
	case kindBoolean:
		return object{"type": "boolean"}
	case kindNumber:
		return numberSchema(s)
	case kindString:
		return stringSchema(s)
	case kindArray:
		return object{"type": "array", "items": schemaOf(s.elem, keys)}
	case kindTuple:
		return object{"type": "array", "items": schemaOf(s.elem, keys), "minItems": s.length, "maxItems": s.length}
	case kindMap:
		return mapSchema(s, keys)
	case kindObject:
		return objectSchema(s, keys)
	case kindEnum:
		var values []any
		for _, v := range s.values {
			values = append(values, json.RawMessage(v.json))
		}
		return object{"enum": values}
	case kindRef:
		return reference("components", "schemas", keys[s.def])
	case kindDeclared:
		if slices.Contains([]string{"string", "number", "boolean"}, s.text) {
			return object{"type": s.text}
		}
		return object{"description": "In TypeScript: " + s.text}
	default:
		return object{}
	}
}

func stringSchema(s *shape) object {
	switch s.format {
	case formatBase64:
		return object{"type": "string", "contentEncoding": "base64"}
	case formatTime:
		return object{"type": "string", "format": "date-time"}
	}
	return object{"type": "string"}
}

func numberSchema(s *shape) object {
	schema := object{"type": "number"}
	if s.integer {
		schema["type"] = "integer"
	}
	if s.unsigned {
		schema["minimum"] = 0
	}
	if s.format == formatDuration {
		schema["description"] = s.note()
	}
	return schema
}

func mapSchema(s *shape, keys map[*definition]string) object {
	schema := object{"type": "object", "additionalProperties": schemaOf(s.elem, keys)}
	switch {
	case s.key.kind == kindNumber || s.key.kind == kindRef && s.key.def.body.values[0].json[0] != '"':
		schema["propertyNames"] = object{"pattern": "^-?[0-9]+$"}
	case s.key.kind == kindRef:
		schema["propertyNames"] = schemaOf(s.key, keys)
	}
	return schema
}

func objectSchema(s *shape, keys map[*definition]string) object {
	schema := object{"type": "object"}
	properties := object{}
	var required []string
	for _, f := range s.fields {
		properties[f.name] = described(schemaOf(f.shape, keys), f.doc)
		if !f.optional {
			required = append(required, f.name)
		}
	}
	if len(properties) > 0 {
		schema["properties"] = properties
	}
	if required != nil {
		schema["required"] = required
	}
	return schema
}
