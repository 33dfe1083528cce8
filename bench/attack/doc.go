// Package attack holds the command that runs attacks on a server: the list of
// attacks, the process of the attackers, the healthy clients and newcomers
// beside it, and the tables that compare them.
package attack
