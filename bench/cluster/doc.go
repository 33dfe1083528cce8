// Package cluster is the command cluster, which measures nodes in processes of their own that share
// a broker: messages a second, latency across nodes and within one, and the work of the broker.
package cluster
