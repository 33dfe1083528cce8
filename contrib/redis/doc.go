// Package redisbroker connects the Managers of several processes through Redis 7: its [Broker] is
// for [ws.WithBroker].
//
//	broker, err := redisbroker.New(redisbroker.Config{
//		Options: rueidis.ClientOption{InitAddress: []string{"10.0.0.1:6379"}},
//	})
//	m, err := ws.NewManager(ws.WithBroker(broker))
//
// It uses pub/sub: a message is kept nowhere, and reaches the nodes that are connected when it is
// published. A [HistoryBroker] also stores the histories of rooms, in streams. The README of the module
// has the guarantees, and the setup of the server.
//
// # Channels
//
// With the prefix "ws", the messages of a room have the channel ws.r.<name>, those of a user
// ws.u.<name>, those to a node ws.n.<id>, and those to all nodes ws.a., with the bytes of the name
// as they are. A history has the channel ws.h.<name>, and the keys ws.m.<name> and ws.s.<name>. With
// Config.Sharded the prefix is followed by the hash tag of the topic's partition, as in
// ws{12}.r.<name>.
package redisbroker
