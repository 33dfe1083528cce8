package room

import "errors"

var (
	// ErrExists reports that Create was given the ID of a room that is in the directory.
	ErrExists = errors.New("room: already exists")

	// ErrFull reports that a room already holds Config.MaxSize members.
	ErrFull = errors.New("room: full")

	// ErrDeleted reports a Join on a room that Delete or DeleteEmpty took out of the directory.
	ErrDeleted = errors.New("room: deleted")
)
