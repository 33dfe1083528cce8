//go:build race

package ws_test

// scenarioRace tells that the race detector watches.
const scenarioRace = true
