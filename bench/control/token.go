package control

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// tokenKey signs the tokens. Load generator and server are of one program, so it
// keeps no secret; checking it costs as much as checking a real one.
var tokenKey = []byte("bench")

// Token returns the token that a server with Config.Authenticate expects in the
// query of an upgrade request, as token: the user's number and its HMAC-SHA256.
func Token(user uint64) string {
	number := strconv.FormatUint(user, 10)
	return number + "." + hex.EncodeToString(sign(number))
}

// TokenUser returns the user of a token, or false if the token is not valid.
func TokenUser(token string) (user uint64, ok bool) {
	number, signature, _ := strings.Cut(token, ".")
	user, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, false
	}
	mac, err := hex.DecodeString(signature)
	return user, err == nil && hmac.Equal(mac, sign(number))
}

func sign(number string) []byte {
	h := hmac.New(sha256.New, tokenKey)
	h.Write([]byte(number))
	return h.Sum(nil)
}

// RoomOf is the k-th room, of Config.JoinRooms, that a user is put into: one of
// 1,000, and never room 0.
func RoomOf(user uint64, k int) int { return 1 + int((user*31+uint64(k))%1000) }
