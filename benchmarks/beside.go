package main

import "strings"

// programs are what samples are taken with: this program, and the same one with another
// version of resock, or nothing.
type programs struct{ own, other string }

// otherSuffix marks the rows of the other version.
const otherSuffix = ", other version"

// of returns the program that has the peer of a row, and the peer's name.
func (p programs) of(row string) (program, peer string) {
	if peer, ok := strings.CutSuffix(row, otherSuffix); ok {
		return p.other, peer
	}
	return p.own, row
}

// withOther returns the groups with a row for the other version of resock below each of
// this one.
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
