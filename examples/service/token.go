package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/qi-realtime/ws"
)

// key signs tokens. A token is USER.END.MAC: the user in base64url, the Unix time at which it
// ends, and the HMAC-SHA256 of both in base64url.
type key []byte

func (k key) sign(user string, end time.Time) string {
	claims := base64.RawURLEncoding.EncodeToString([]byte(user)) + "." + strconv.FormatInt(end.Unix(), 10)
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(claims))
	return claims + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// verify returns the user of a token: it must equal the token that sign makes of its parts.
func (k key) verify(token string, now time.Time) (string, error) {
	name, rest, _ := strings.Cut(token, ".")
	until, _, _ := strings.Cut(rest, ".")
	user, _ := base64.RawURLEncoding.DecodeString(name)
	seconds, _ := strconv.ParseInt(until, 10, 64)
	end := time.Unix(seconds, 0)
	if !hmac.Equal([]byte(token), []byte(k.sign(string(user), end))) || !now.Before(end) {
		return "", errors.New("the token is malformed, forged or expired")
	}
	return string(user), nil
}

// authenticate takes the token from "Authorization: Bearer TOKEN". A browser cannot set headers, so
// a page offers it as a subprotocol: new WebSocket(url, ["rooms.v1", "bearer.TOKEN"]).
func (k key) authenticate(r *http.Request) (opts []ws.ClientOption, err error) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	offers := strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ",")
	for offer := range strings.FieldsFuncSeq(offers, func(r rune) bool { return r == ',' || r == ' ' }) {
		if offer == "rooms.v2" { // this client moves when it reads the event ws.reconnect
			opts = append(opts, ws.WithReconnectNotice())
		} else if t, ok := strings.CutPrefix(offer, "bearer."); ok {
			token = t
		}
	}
	user, err := k.verify(token, time.Now())
	return append(opts, ws.WithUser(user)), err
}
