package room

import "errors"

var (
	// ErrExists reports a Create with the ID of a room that is in the directory.
	ErrExists = errors.New("room: already exists")

	// ErrFull reports that a room already holds Config.MaxSize members.
	ErrFull = errors.New("room: full")

	// ErrDeleted reports a Join of a room that has left the directory.
	ErrDeleted = errors.New("room: deleted")
)
