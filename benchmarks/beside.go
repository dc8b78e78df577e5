package main

import "strings"

// programs take the samples: this program and, if not empty, one built with another
// version of resock.
type programs struct{ own, other string }

// otherSuffix marks the rows of the other version.
const otherSuffix = ", other version"

// of returns the program that measures a row, and the name of its peer.
func (p programs) of(row string) (program, peer string) {
	if peer, ok := strings.CutSuffix(row, otherSuffix); ok {
		return p.other, peer
	}
	return p.own, row
}

// withOther adds a row for the other version of resock below each row for this one.
func withOther(groups []group) []group {
	for i, g := range groups {
		var rows []string
		for _, peer := range g.peers {
			rows = append(rows, peer)
			if strings.HasPrefix(peer, nameResock) {
				rows = append(rows, peer+otherSuffix)
			}
		}
		groups[i].peers = rows
	}
	return groups
}
