package gateway

// filesEach is how many open files are counted for a socket: the client's, the node's, and one for all else, such
// as requests, probes and the registry.
const filesEach = 3

// socketLimit is the most sockets at a time: as configured, but no more than the files that the process may open
// (0: not known) allow.
func socketLimit(configured int, files uint64) int {
	if files == 0 {
		return configured
	}
	return int(min(uint64(configured), max(files/filesEach, 1)))
}
