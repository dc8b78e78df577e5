// Package docs has no code of its own: its tests check the documents.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// repository is the root of all documents.
var repository = os.DirFS("..")

// Every relative link of a document leads to a file, and to a heading in it if it names
// one, spelled as it is spelled there.
func TestLinks(t *testing.T) {
	files := tree(t)
	for _, file := range files {
		if path.Ext(file) != ".md" {
			continue
		}
		for _, link := range links(read(t, file)) {
			if fault := reach(t, files, file, link); fault != "" {
				t.Errorf("%s: the link %q: %s", file, link, fault)
			}
		}
	}
}

// tree returns all files and folders of the repository, but not what was installed there.
func tree(t *testing.T) (files []string) {
	t.Helper()
	err := fs.WalkDir(repository, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.Name() == ".git" || entry.Name() == "node_modules") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := fs.ReadFile(repository, file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// reach returns what is wrong with a link of a document, or nothing.
func reach(t *testing.T, files []string, document, link string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return ""
	}
	name, anchor, _ := strings.Cut(link, "#")
	target := document
	if name != "" {
		target = path.Join(path.Dir(document), name)
	}
	switch {
	case !slices.Contains(files, target):
		return fmt.Sprintf("there is no %s", target)
	case anchor != "" && path.Ext(target) != ".md":
		return "an anchor of a file that has no headings"
	case anchor != "" && !slices.Contains(anchors(read(t, target)), anchor):
		return fmt.Sprintf("%s has no heading #%s", target, anchor)
	}
	return ""
}

var (
	fenced    = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	quoted    = regexp.MustCompile("``.+?``|`[^`\n]+`")
	linked    = regexp.MustCompile(`\]\(([^)\s]+)(?: "[^"]*")?\)|(?m:^\[[^\]]+\]: *(\S+))|<(?:img|a)[^>]* (?:src|href)="([^"]+)"`)
	heading   = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
	decorated = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// links returns the targets of all links and pictures of a document, except in code.
func links(text string) (targets []string) {
	text = quoted.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
	for _, match := range linked.FindAllStringSubmatch(text, -1) {
		targets = append(targets, match[1]+match[2]+match[3])
	}
	return targets
}

// anchors returns the anchors of all headings of a document, as GitHub makes them: of
// their letters, digits, hyphens and underscores in lower case, with a hyphen for each
// space, and a number if there was the same before.
func anchors(text string) (all []string) {
	seen := make(map[string]int)
	for _, match := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		title := decorated.ReplaceAllString(match[1], "$1")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, title)
		number := seen[anchor]
		seen[anchor]++
		if number > 0 {
			anchor = fmt.Sprintf("%s-%d", anchor, number)
		}
		all = append(all, anchor)
	}
	return all
}

func TestLinksOfADocument(t *testing.T) {
	text := "[a](b.md#c) ![p](p.png \"title\") `[no](no.md)` <img alt=\"x\" src=\"i.svg\">\n\n" +
		"```\n[no](no.md)\n# No heading\n```\n[ref]: r.md\n"
	if got, want := links(text), []string{"b.md#c", "p.png", "i.svg", "r.md"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	text = "# One `Two`, three: [four](x.md)\n\n## Same\n\n```\n# none\n```\n\n## Same\n### snake_case and-hyphen – ÄÖ 1.2\n"
	want := []string{"one-two-three-four", "same", "same-1", "snake_case-and-hyphen--äö-12"}
	if got := anchors(text); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A link that differs in case, or leads to no file or heading, is found.
func TestBrokenLinks(t *testing.T) {
	files := tree(t)
	for link, broken := range map[string]bool{
		"behaviour.md": false, "behaviour.md#events": false, "../README.md#use-it": false, "..": false,
		"https://example.com/none": false, "#none": true, "Behaviour.md": true, "none.md": true,
		"behaviour.md#Events": true, "../LICENSE#x": true, "../../outside": true,
	} {
		if fault := reach(t, files, "docs/behaviour.md", link); (fault != "") != broken {
			t.Errorf("%s: %q; broken: %t", link, fault, broken)
		}
	}
}
