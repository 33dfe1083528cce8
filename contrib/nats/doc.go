// Package natsbroker connects the Managers of several processes through NATS: its [Broker] is for
// [ws.WithBroker].
//
//	broker, err := natsbroker.New(natsbroker.Config{Servers: []string{"nats://10.0.0.1:4222"}})
//	m, err := ws.NewManager(ws.WithBroker(broker))
//
// It uses core NATS: a message is kept nowhere, and reaches the nodes that are connected when it is
// published. The [HistoryBroker] of [NewWithHistory] also stores the histories of rooms, in streams of
// JetStream. The README of the module has the guarantees, and the setup of the server.
//
// # Subjects
//
// With the prefix "ws", the messages of a room have the subject ws.r.<shard>.<name>, those of a user
// ws.u.<name>, those to a node ws.n.<id>, and those to all nodes ws.all. The shard is a number
// between 0 and 15 that follows from the name. Messages of histories have the subject
// ws.h.<stream>.<name>, and come to the nodes as ws.l.<stream>.<name>. In a name each
// byte other than a letter, a digit, "-" and "_" is written as "%" and two hexadecimal digits. The
// empty name is "%". A name with more than 600 bytes in that form is "%%" and the SHA-256 of the
// name.
package natsbroker
