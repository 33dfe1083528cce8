package main

import (
	"time"

	"github.com/gorilla/websocket"

	"github.com/qi-realtime/ws/bench/control"
)

// request and response are the JSON envelopes that the library under test
// uses, decoded and encoded with encoding/json.
type (
	request[T any] struct {
		Type      string `json:"type"`
		Event     string `json:"event"`
		RequestID string `json:"request_id"`
		Data      T      `json:"data"`
	}
	response[T any] struct {
		Type      string `json:"type"`
		RequestID string `json:"request_id"`
		Code      int    `json:"code"`
		Message   string `json:"message"`
		Data      T      `json:"data"`
		Timestamp int64  `json:"timestamp"`
	}
)

// answer returns the response to r with data, or a response with an error if r
// is no request of the event.
func answer[Req, Resp any](r *request[Req], event string, data Resp) response[Resp] {
	resp := response[Resp]{Type: "response", RequestID: r.RequestID, Code: 200, Message: "success", Data: data}
	if r.Type != "request" || r.Event != event {
		resp = response[Resp]{Type: "error", RequestID: r.RequestID, Code: 404, Message: "unknown event"}
	}
	resp.Timestamp = time.Now().Unix()
	return resp
}

// gorillaJSON answers one request of the event "echo" through gorilla's ReadJSON
// and WriteJSON.
func gorillaJSON(conn *websocket.Conn) error {
	var req request[control.EchoData]
	if err := conn.ReadJSON(&req); err != nil {
		return err
	}
	resp := answer(&req, "echo", req.Data)
	return conn.WriteJSON(&resp)
}
