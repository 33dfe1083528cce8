package main

import (
	"time"

	"github.com/gorilla/websocket"
)

// request and response are the JSON envelopes that the library under test
// uses, decoded and encoded with encoding/json through gorilla's ReadJSON and
// WriteJSON.
type (
	request struct {
		Type      string   `json:"type"`
		Event     string   `json:"event"`
		RequestID string   `json:"request_id"`
		Data      echoData `json:"data"`
	}
	response struct {
		Type      string   `json:"type"`
		RequestID string   `json:"request_id"`
		Code      int      `json:"code"`
		Message   string   `json:"message"`
		Data      echoData `json:"data"`
		Timestamp int64    `json:"timestamp"`
	}
	echoData struct {
		Seq  uint64 `json:"seq"`
		Sent int64  `json:"sent"`
		Pad  string `json:"pad"`
	}
)

func gorillaJSON(conn *websocket.Conn) error {
	var req request
	if err := conn.ReadJSON(&req); err != nil {
		return err
	}
	resp := response{Type: "response", RequestID: req.RequestID, Code: 200, Message: "success", Data: req.Data}
	if req.Type != "request" || req.Event != "echo" {
		resp = response{Type: "error", RequestID: req.RequestID, Code: 404, Message: "unknown event"}
	}
	resp.Timestamp = time.Now().Unix()
	return conn.WriteJSON(&resp)
}
