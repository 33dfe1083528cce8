// Command say is the program in the README.
package main

import (
	"errors"
	"log"
	"net/http"

	"github.com/qi-realtime/ws"
)

type Say struct{ Room, Text string }

func main() {
	m, err := ws.NewManager()
	if err != nil {
		log.Fatal(err)
	}
	err = ws.Handle0(m, "say", func(c *ws.Client, req *Say) error {
		if err := c.JoinRoom(req.Room); err != nil && !errors.Is(err, ws.ErrAlreadyInRoom) {
			return err
		}
		return m.BroadcastToRoom(req.Room, []byte(req.Text), c) // everybody but c
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(m.Run()) }()
	http.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		if err := m.HandleUpgrade(w, r); err != nil {
			log.Print(err)
		}
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}
