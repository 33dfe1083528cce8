#!/usr/bin/env bash
# Tests every kind of echo server with curl: the handshake and its refusals, as HTTP, because Debian's
# curl sends no frames. ECHO_BINARY is the path of the built interop/clients/echo.
set -euo pipefail

work=$(mktemp -d)
trap 'exec 8>&-; rm -rf "$work"' EXIT
mkfifo "$work/stdin"
"$ECHO_BINARY" <"$work/stdin" >"$work/list" &
server=$!
exec 8>"$work/stdin" # the server ends when this is closed
for _ in $(seq 1200); do
  [[ -s $work/list ]] && break
  sleep 0.05
done

# The list is one line of JSON, and no URL in it has an escape.
mapfile -t urls < <(grep -o '"url":"[^"]*"' "$work/list" | cut -d'"' -f4)
mapfile -t nethttp < <(grep -o '"nethttp":[a-z]*' "$work/list" | cut -d: -f2)
grep -o '"certificate":"[^"]*"' "$work/list" | cut -d'"' -f4 | sed 's/\\n/\n/g' >"$work/cert.pem"
((${#urls[@]} > 0))

passed=0 failed=0
readonly KEY='Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
readonly HANDSHAKE=(-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H "$KEY")

# get ARGUMENTS... writes the lines of the answer's head to $work/lines. An accepted handshake
# stays open, so get ends curl after the blank line.
get() {
  : >"$work/head"
  curl --silent --http1.1 --no-buffer --max-time 60 --cacert "$work/cert.pem" \
    --dump-header "$work/head" --output /dev/null "$@" &
  local curl=$!
  until grep -q '^.$' "$work/head" || ! kill -0 "$curl" 2>/dev/null; do sleep 0.01; done
  kill "$curl" 2>/dev/null || true
  wait "$curl" || true
  tr -d '\r' <"$work/head" >"$work/lines"
}

# expect NAME STATUS LINE... checks the status and that the answer has each header line.
expect() {
  local name=$1 status=$2 line missing=
  shift 2
  grep -q "^HTTP/1.[01] $status " "$work/lines" || missing="status $status"
  for line in "$@"; do
    grep -qiFx "$line" "$work/lines" || missing="$line"
  done
  if [[ -z $missing ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAIL  %s: %s: no %s in\n%s\n' "$url" "$name" "$missing" "$(cat "$work/lines")"
  fi
}

for i in "${!urls[@]}"; do
  url=${urls[i]}
  http=http${url#ws}
  get "${HANDSHAKE[@]}" "$http"
  expect 'handshake' 101 'Upgrade: websocket' 'Connection: Upgrade' \
    'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=' 'Set-Cookie: first=1; Path=/' 'Set-Cookie: second=2'
  get "${HANDSHAKE[@]}" -H 'Sec-WebSocket-Protocol: echo.v1, echo.v2' "$http"
  expect 'subprotocol' 101 'Sec-WebSocket-Protocol: echo.v2'
  get "$http"
  expect 'plain GET' 426 'Upgrade: websocket' 'Sec-WebSocket-Version: 13'
  get "${HANDSHAKE[@]}" -H 'Sec-WebSocket-Version: 8' "$http"
  expect 'two versions' 400
  get -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 8' -H "$KEY" "$http"
  expect 'version 8' 426 'Sec-WebSocket-Version: 13'
  get "${HANDSHAKE[@]:0:6}" -H 'Sec-WebSocket-Key: c2hvcnQ=' "$http"
  expect 'short key' 400
  get "${HANDSHAKE[@]}" -H 'Origin: https://evil.example' "$http"
  expect 'origin' 403
  get "${HANDSHAKE[@]}" "$http?deny"
  expect 'authentication' 401
  get "${HANDSHAKE[@]}" "$http/other"
  expect 'another path' 404
  get -X POST "${HANDSHAKE[@]}" "$http"
  expect 'POST' 405 'Allow: GET'
  get "${HANDSHAKE[@]}" -d 'a body' -X GET "$http"
  expect 'a body' 400
  get "${HANDSHAKE[@]}" -H "X: $(printf 'x%.0s' {1..9000})" "$http"
  expect 'many cookies' 101
  get "${HANDSHAKE[@]}" -H "X: $(printf 'x%.0s' {1..20000})" "$http"
  # An http.Server has its own limit, 1 MiB.
  if [[ ${nethttp[i]} == true ]]; then expect 'a long header' 101; else expect 'a long header' 431; fi
  get --no-alpn --http1.0 "${HANDSHAKE[@]}" "$http"
  expect 'HTTP/1.0' 505
done

exec 8>&-
wait "$server"
printf '%s: %d passed, %d failed\n' "$(curl --version | cut -d' ' -f1-2 | head -1)" "$passed" "$failed"
((failed == 0))
