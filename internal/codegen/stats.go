package main

import (
	"fmt"
	"strings"
	"unicode"
)

// engine returns the engine's side: the counters of a shard, and the reasons for drops.
func (t structs) engine() string {
	var c code
	c.line("package engine\n\nimport (\n\"time\"\n\n\"github.com/qi-realtime/ws/codec\"")
	c.line("\"github.com/qi-realtime/ws/internal/measure\"\n)\n")
	c.line("// The reasons for drops.\nconst (")
	for i, f := range t["DropCounts"] {
		c.line("\tDrop%s%s // %s", f.name, first(i, " DropReason = iota"), f.help)
	}
	c.line("\tnumDropReasons\n)\n")
	c.line("// DropCounts is the numbers of messages that connections did not get, by reason.\ntype DropCounts struct {")
	c.fields(t["DropCounts"], "%[1]s %[3]s // %[4]s")
	c.line("}\n\n// Counts returns a snapshot.\nfunc (d *Drops) Counts() DropCounts {\n\treturn DropCounts{")
	c.fields(t["DropCounts"], "%[1]s: d.counts[Drop%[1]s].Load(),")
	c.line("}\n}\n")
	t.closes(&c)
	c.line("// shardStats is the counters of a shard.\ntype shardStats struct {")
	for _, f := range t["LoopStats"] {
		c.line("\t%s %s", lower(f.name), f.recorder().live)
	}
	c.line("}\n\n// ShardStats is a snapshot of a shard's counters.\ntype ShardStats struct {")
	for _, f := range t["LoopStats"] {
		c.line("%s %s // %s", f.name, f.recorder().snapshot, f.help)
	}
	c.line("}\n\nfunc (st *shardStats) snapshot() ShardStats {\n\treturn ShardStats{")
	for _, f := range t["LoopStats"] {
		if f.recorder().live == "counter" {
			c.line("%s: %s(st.%s.Load()),", f.name, f.kind, lower(f.name))
		} else {
			c.line("%s: st.%s.Counts(),", f.name, lower(f.name))
		}
	}
	c.line("}\n}\n")
	t.add(&c, "LoopStats", "ShardStats")
	t.add(&c, "DropCounts", "DropCounts")
	t.add(&c, "CloseCounts", "CloseCounts")
	return c.String()
}

// recorder is the type of a shard that counts a field, and the type of its snapshot.
type recorder struct{ live, snapshot string }

func (f field) recorder() recorder {
	switch f.kind {
	case "DropCounts":
		return recorder{"Drops", f.kind}
	case "CloseCounts":
		return recorder{"closeCounters", f.kind}
	case "Times":
		return recorder{"measure.Times", "measure.TimeCounts"}
	case "Sizes":
		return recorder{"measure.Sizes", "measure.SizeCounts"}
	}
	return recorder{"counter", f.kind}
}

// isHistogram reports whether the field is a histogram.
func (f field) isHistogram() bool { return f.kind == "Times" || f.kind == "Sizes" }

// closes writes the counters of ended connections, by the close codes in the names of their fields.
func (t structs) closes(c *code) {
	c.line("// CloseCounts is the numbers of connections that ended, by close code.\ntype CloseCounts struct {")
	c.fields(t["CloseCounts"], "%[1]s %[3]s // %[4]s")
	c.line("}\n\n// closeCounters counts ended connections by close code.\ntype closeCounters struct {")
	c.fields(t["CloseCounts"], "%[2]s counter")
	c.line("}\n\n// of returns the counter of code.")
	c.line("func (n *closeCounters) of(code codec.CloseCode) *counter {\n\tswitch {")
	for _, f := range t["CloseCounts"] {
		switch digits := strings.TrimPrefix(f.name, "Code"); {
		case strings.HasSuffix(digits, "xxx"):
			c.line("case code/1000 == %s:\nreturn &n.%s", digits[:1], lower(f.name))
		case digits != f.name:
			c.line("case code == %s:\nreturn &n.%s", digits, lower(f.name))
		}
	}
	c.line("}\n\treturn &n.other\n}\n\n// Counts returns a snapshot.")
	c.line("func (n *closeCounters) Counts() CloseCounts {\n\treturn CloseCounts{")
	c.fields(t["CloseCounts"], "%[1]s: n.%[2]s.Load(),")
	c.line("}\n}\n")
}

// root returns the root package's side: sums, the reasons for refusals, and the table of Figures.
func (t structs) root() string {
	var c code
	c.line("package ws\n\nimport \"github.com/qi-realtime/ws/engine\"\n")
	c.line("func loopStats(st engine.ShardStats) LoopStats {\n\treturn LoopStats{")
	for _, f := range t["LoopStats"] {
		if f.recorder().live == "counter" {
			c.line("%[1]s: st.%[1]s,", f.name)
		} else {
			c.line("%[1]s: %[2]s(st.%[1]s),", f.name, f.kind)
		}
	}
	c.line("}\n}\n")
	t.add(&c, "LoopStats", "LoopStats")
	t.add(&c, "DropCounts", "DropCounts")
	t.add(&c, "CloseCounts", "CloseCounts")
	c.line("// The reasons for refusals.\nconst (")
	for i, f := range t["RefusalCounts"] {
		c.line("\trefused%s%s // %s", f.name, first(i, " refusalReason = iota"), f.help)
	}
	c.line("\tnumRefusalReasons\n)\n")
	c.line("func (n *refusals) counts() RefusalCounts {\n\treturn RefusalCounts{")
	c.fields(t["RefusalCounts"], "%[1]s: n[refused%[1]s].Load(),")
	c.line("}\n}\n\n// Total is the sum of all reasons.\nfunc (c *RefusalCounts) Total() (n uint64) {")
	c.fields(t["RefusalCounts"], "n += c.%[1]s")
	c.line("return n\n}\n\nvar managerFigures = []figure[Stats]{")
	t.figures(&c, "Stats", "Stats", "", "")
	c.line("}\n\nvar loopFigures = []figure[LoopStats]{")
	t.figures(&c, "LoopStats", "LoopStats", "", "loop_")
	c.line("}\n\nvar loopHistograms = []histogram[LoopStats]{")
	t.histograms(&c, "LoopStats")
	c.line("}\n\nvar routeHistograms = []histogram[RouteStats]{")
	t.histograms(&c, "RouteStats")
	c.line("}")
	return c.String()
}

// add writes the method Add of kind, which has the fields of the struct name.
func (t structs) add(c *code, name, kind string) {
	c.line("// Add adds the numbers of o.\nfunc (st *%[1]s) Add(o *%[1]s) {", kind)
	for _, f := range t[name] {
		switch {
		case f.kind == "time.Duration" && !strings.HasPrefix(f.help, "total "):
			c.line("st.%[1]s = max(st.%[1]s, o.%[1]s)", f.name)
		case t[f.kind] != nil || f.isHistogram():
			c.line("st.%[1]s.Add(&o.%[1]s)", f.name)
		default:
			c.line("st.%[1]s += o.%[1]s", f.name)
		}
	}
	c.line("}\n")
}

// figures writes the figures of the struct name, which is the part path of an owner.
func (t structs) figures(c *code, owner, name, path, prefix string) {
	for _, f := range t[name] {
		where, figure := path+"."+f.name, prefix+snake(f.name)
		switch {
		case strings.HasSuffix(f.kind, "LoopStats"), strings.HasSuffix(f.kind, "RouteStats"), f.isHistogram():
		case strings.HasSuffix(f.kind, "Counts"):
			for _, reason := range t[f.kind] {
				c.line("{Figure{Name: %q, Help: %q, Counter: true, Reason: %q}, func(st *%s) float64 { return float64(st%s.%s) }},",
					total(figure), f.help, reason.reason(), owner, where, reason.name)
			}
		case t[f.kind] != nil:
			t.figures(c, owner, f.kind, where, figure+"_")
		default:
			c.line("{%s, func(st *%s) float64 { return %s }},", f.figure(figure), owner, f.value("st"+where))
		}
	}
}

// reason returns the reason of a count, or its close code.
func (f field) reason() string { return strings.TrimPrefix(snake(f.name), "code") }

// histograms writes the histograms of the struct name.
func (t structs) histograms(c *code, name string) {
	for _, f := range t[name] {
		if !f.isHistogram() {
			continue
		}
		unit := map[string]string{"Times": "_seconds", "Sizes": "_bytes"}[f.kind]
		c.line("{%q, %q, func(st *%s) (bounds []float64, counts []uint64, sum float64) { return st.%s.values() }},",
			snake(f.name)+unit, f.help, name, f.name)
	}
}

// figure returns the literal of a number's Figure.
func (f field) figure(name string) string {
	counter := f.kind == "uint64" || strings.HasPrefix(f.help, "total ")
	if strings.HasSuffix(name, "_memory") {
		name += "_bytes"
	}
	if f.kind == "time.Duration" {
		name = strings.TrimSuffix(name, "_time") + "_seconds"
	}
	if counter {
		return fmt.Sprintf("Figure{Name: %q, Help: %q, Counter: true}", total(name), f.help)
	}
	return fmt.Sprintf("Figure{Name: %q, Help: %q}", name, f.help)
}

// value returns the expression of a number as float64.
func (f field) value(of string) string {
	switch f.kind {
	case "bool":
		return "boolFigure(" + of + ")"
	case "time.Duration":
		return of + ".Seconds()"
	}
	return "float64(" + of + ")"
}

func total(name string) string { return strings.TrimSuffix(name, "_total") + "_total" }

func first(i int, s string) string {
	if i == 0 {
		return s
	}
	return ""
}

// lower returns name in lower camel case.
func lower(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// snake returns name in snake case.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) && !unicode.IsUpper(rune(name[i-1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
