// Package resume is the command resume, which measures rooms with a history: clients that come
// back with messages missed, members that stall and catch up, and the memory of histories.
package resume
