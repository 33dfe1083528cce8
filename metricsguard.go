package ws

// guardedMetrics calls an application's Metrics; a panic in it is reported and
// ends there. Metrics are called where a connection is taken apart or a loop
// writes: nothing of that may be left half done. Safe for concurrent use.
type guardedMetrics struct {
	metrics Metrics
	report  func(recovered any)
}

// guard must be deferred.
func (g *guardedMetrics) guard() {
	if r := recover(); r != nil {
		g.report(r)
	}
}

// IncrementConnections calls the application's.
func (g *guardedMetrics) IncrementConnections() {
	defer g.guard()
	g.metrics.IncrementConnections()
}

// DecrementConnections calls the application's.
func (g *guardedMetrics) DecrementConnections() {
	defer g.guard()
	g.metrics.DecrementConnections()
}

// SetConnectionCount calls the application's.
func (g *guardedMetrics) SetConnectionCount(count int) {
	defer g.guard()
	g.metrics.SetConnectionCount(count)
}

// IncrementMessageCount calls the application's.
func (g *guardedMetrics) IncrementMessageCount(event string) {
	defer g.guard()
	g.metrics.IncrementMessageCount(event)
}

// RecordMessageLatency calls the application's.
func (g *guardedMetrics) RecordMessageLatency(event string, ns int64) {
	defer g.guard()
	g.metrics.RecordMessageLatency(event, ns)
}

// IncrementMessageErrors calls the application's.
func (g *guardedMetrics) IncrementMessageErrors(event string) {
	defer g.guard()
	g.metrics.IncrementMessageErrors(event)
}

// SetRoomCount calls the application's.
func (g *guardedMetrics) SetRoomCount(count int) {
	defer g.guard()
	g.metrics.SetRoomCount(count)
}

// SetRoomMemberCount calls the application's.
func (g *guardedMetrics) SetRoomMemberCount(roomID string, count int) {
	defer g.guard()
	g.metrics.SetRoomMemberCount(roomID, count)
}

// RoomEnded calls the application's, if there is one.
func (g *guardedMetrics) RoomEnded(roomID string) {
	defer g.guard()
	if rooms, ok := g.metrics.(RoomMetrics); ok {
		rooms.RoomEnded(roomID)
	}
}

// RecordBroadcastLatency calls the application's.
func (g *guardedMetrics) RecordBroadcastLatency(ns int64) {
	defer g.guard()
	g.metrics.RecordBroadcastLatency(ns)
}

// IncrementDroppedMessages calls the application's.
func (g *guardedMetrics) IncrementDroppedMessages() {
	defer g.guard()
	g.metrics.IncrementDroppedMessages()
}

// IncrementReadErrors calls the application's.
func (g *guardedMetrics) IncrementReadErrors() {
	defer g.guard()
	g.metrics.IncrementReadErrors()
}

// IncrementWriteErrors calls the application's.
func (g *guardedMetrics) IncrementWriteErrors() {
	defer g.guard()
	g.metrics.IncrementWriteErrors()
}

// IncrementInvalidMessages calls the application's.
func (g *guardedMetrics) IncrementInvalidMessages() {
	defer g.guard()
	g.metrics.IncrementInvalidMessages()
}
