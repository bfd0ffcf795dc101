// SPDX-License-Identifier: Apache-2.0

// The check of lists: a list contains everything whose presence is certain
// throughout the request, and nothing whose absence is certain throughout.

package bucket_test

import "slices"

// certainty is the knowledge about one name: the events that prove its presence or
// its absence, and those that may have changed it.
type certainty struct {
	present, absent []*event // evidence
	adds, removes   []*event
	stale           []*event // that explain an absent name in a list: exception (d)
}

// may reports whether an event may take effect between two ticks.
func may(events []*event, from, to int64) bool {
	return slices.ContainsFunc(events, func(e *event) bool {
		return e.start < to && (e.unknown() || e.again || e.end > from)
	})
}

// isPresent reports whether the name is certainly there from one tick to another.
func (c *certainty) isPresent(from, to int64) bool {
	return slices.ContainsFunc(c.present, func(e *event) bool { return e.end < from && !may(c.removes, e.start, to) })
}

// isAbsent is the contrary of isPresent: both may be false. At the beginning there is
// nothing.
func (c *certainty) isAbsent(from, to int64) bool {
	return !may(c.adds, 0, to) ||
		slices.ContainsFunc(c.absent, func(e *event) bool { return e.end < from && !may(c.adds, e.start, to) })
}

// addRead collects the evidence of a GET or HEAD.
func (c *certainty) addRead(e *event) {
	switch e.status {
	case 200:
		c.present = append(c.present, e)
	case 404:
		c.absent = append(c.absent, e)
	}
}

// addDelete collects the evidence of a DELETE.
func (c *certainty) addDelete(e *event) {
	switch {
	case e.status == 202:
		c.absent, c.removes = append(c.absent, e), append(c.removes, e)
	case e.status == 404:
		c.absent = append(c.absent, e)
	case e.unknown():
		c.removes = append(c.removes, e)
	}
}

// certaintyOfTag collects the knowledge about a tag.
func certaintyOfTag(history []*event, repo, tag string) *certainty {
	c := new(certainty)
	for _, e := range history {
		if e.repo != repo {
			continue
		}
		here := slices.Contains(e.tags, tag)
		switch e.kind {
		case opPush:
			switch {
			case !here:
			case e.status == 201:
				c.present, c.adds = append(c.present, e), append(c.adds, e)
			case e.unknown():
				c.adds = append(c.adds, e)
			case e.several(): // exception (c)
				c.adds, c.removes = append(c.adds, e), append(c.removes, e)
			}
		case opGetTag, opHeadTag:
			if here {
				c.addRead(e)
			}
		case opDeleteTag:
			if here {
				c.addDelete(e)
			}
		case opDeleteManifest:
			if e.status == 202 || e.unknown() {
				c.removes, c.stale = append(c.removes, e), append(c.stale, e)
			}
		}
	}
	return c
}

// certaintyOfManifest collects the knowledge about a manifest.
func certaintyOfManifest(history []*event, repo string, m int) *certainty {
	c := new(certainty)
	for _, e := range history {
		if e.repo != repo {
			continue
		}
		switch e.kind {
		case opPush:
			switch {
			case e.manifest != m:
			case e.status == 201:
				c.present, c.adds = append(c.present, e), append(c.adds, e)
			default:
				c.adds = append(c.adds, e)
			}
		case opGetManifest, opHeadManifest:
			if e.manifest == m {
				c.addRead(e)
			}
		case opDeleteManifest:
			if e.manifest == m {
				c.addDelete(e)
			}
		}
	}
	return c
}

// certaintyOfBlob collects the knowledge about a blob.
func certaintyOfBlob(history []*event, repo string, b int) *certainty {
	c := new(certainty)
	for _, e := range history {
		if e.repo != repo || e.blob != b {
			continue
		}
		switch e.kind {
		case opPushBlob, opUpload, opMount:
			switch {
			case e.status == 201:
				c.present, c.adds = append(c.present, e), append(c.adds, e)
			case e.unknown() || e.again:
				c.adds = append(c.adds, e)
			}
		case opGetBlob, opHeadBlob:
			c.addRead(e)
		case opDeleteBlob:
			c.addDelete(e)
		}
	}
	return c
}

// listChecker checks the lists in a history.
type listChecker struct {
	res       *result
	rules     rules
	tags      map[string][]*certainty // by repository, in the order of simTags
	manifests map[string][]*certainty
	blobs     map[string][]*certainty
}

func checkLists(res *result, r rules) {
	c := &listChecker{res, r, make(map[string][]*certainty), make(map[string][]*certainty), make(map[string][]*certainty)}
	for _, repo := range simRepos {
		for _, tag := range simTags {
			c.tags[repo] = append(c.tags[repo], certaintyOfTag(res.history, repo, tag))
		}
		for m := range simManifests {
			c.manifests[repo] = append(c.manifests[repo], certaintyOfManifest(res.history, repo, m))
		}
		for b := range simBlobs {
			c.blobs[repo] = append(c.blobs[repo], certaintyOfBlob(res.history, repo, b))
		}
	}
	for _, e := range res.history {
		if e.status != 200 && e.status != 404 {
			continue
		}
		switch e.kind {
		case opTags:
			for i, tag := range simTags {
				c.check(e, tag, c.tags[e.repo][i], tag > e.last)
			}
			if e.status == 404 && c.repoPresent(e) {
				c.violate(e, "the repository exists", nil)
			}
		case opReferrers:
			for i, m := range simManifests {
				c.check(e, m.digest.String(), c.manifests[e.repo][i], m.subject == e.manifest)
			}
		case opCatalog:
			for _, repo := range simRepos {
				at := *e
				at.repo = repo
				shown := slices.Contains(e.names, repo)
				switch {
				case !shown && c.complete(e, repo) && c.repoPresent(&at):
					c.violate(e, repo+" is missing", nil)
				case shown && c.repoAbsent(&at):
					c.violate(e, repo+" does not exist", nil)
				}
			}
		}
		for _, name := range e.names {
			if !knownName(e.kind, name) {
				c.violate(e, "unknown name "+name, nil)
			}
		}
	}
}

func knownName(kind, name string) bool {
	switch kind {
	case opTags:
		return slices.Contains(simTags, name)
	case opReferrers:
		return manifestOf(name) >= 0
	case opCatalog:
		return slices.Contains(simRepos, name)
	}
	return true
}

func (c *listChecker) violate(e *event, text string, because *certainty) {
	v := violation{check: "list", text: e.String() + ": " + text, events: []*event{e}}
	if because != nil {
		v.events = append(v.events, slices.Concat(because.present, because.absent, because.adds, because.removes)...)
	}
	c.res.violations = append(c.res.violations, v)
}

// complete reports whether a page goes at least as far as a name.
func (c *listChecker) complete(e *event, name string) bool {
	return !e.more && (e.n == 0 || len(e.names) < e.n) || len(e.names) > 0 && name <= e.names[len(e.names)-1]
}

// check checks one name of a list, which belongs there if it exists.
func (c *listChecker) check(e *event, name string, known *certainty, belongs bool) {
	shown := slices.Contains(e.names, name)
	switch {
	case shown && !belongs:
		c.violate(e, name+" does not belong there", nil)
	case !shown && belongs && c.complete(e, name) && known.isPresent(e.start, e.end):
		c.violate(e, name+" is missing", known)
	case shown && known.isAbsent(e.start, e.end):
		if c.rules.staleLists && slices.ContainsFunc(known.stale, func(d *event) bool { return d.start < e.end && (d.unknown() || d.end > e.start) }) {
			return
		}
		c.violate(e, name+" does not exist", known)
	}
}

// repoPresent reports whether one of a repository's manifests or blobs is certainly
// present.
func (c *listChecker) repoPresent(e *event) bool {
	is := func(known *certainty) bool {
		if !c.rules.looseNames {
			return known.isPresent(e.start, e.end)
		}
		pushed := *known
		pushed.present = slices.DeleteFunc(slices.Clone(known.present), func(e *event) bool { return e.status != 201 })
		return pushed.isPresent(e.start, e.end)
	}
	return slices.ContainsFunc(c.manifests[e.repo], is) || slices.ContainsFunc(c.blobs[e.repo], is)
}

// leavesName reports whether e may be the reason why a list shows a repository that has
// no content: e is in progress, or has failed.
func (e *event) leavesName(list *event) bool {
	switch e.kind {
	case opPush, opPushBlob, opUpload, opMount, opDeleteManifest, opDeleteBlob:
		failed := e.unknown() || e.again || e.status >= 400 && e.kind == opPush
		return e.repo == list.repo && e.start < list.end && (e.end > list.start || failed)
	}
	return false
}

// repoAbsent reports whether all of a repository's manifests and blobs are certainly
// absent.
func (c *listChecker) repoAbsent(e *event) bool {
	if c.rules.looseNames && slices.ContainsFunc(c.res.history, func(other *event) bool { return other.leavesName(e) }) {
		return false
	}
	not := func(known *certainty) bool { return !known.isAbsent(e.start, e.end) }
	return !slices.ContainsFunc(c.manifests[e.repo], not) && !slices.ContainsFunc(c.blobs[e.repo], not)
}
