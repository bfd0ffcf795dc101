// SPDX-License-Identifier: Apache-2.0

//go:build linux

package peers

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	whole   = flag.Bool("table", false, "measure all rows in full")
	write   = flag.String("write", "", "write the table to this file")
	only    = flag.String("rows", "", "measure the rows whose names match this regular expression")
	servers = flag.String("servers", strings.Join(kinds, ","), "measure these, raw among them")
	rounds  = flag.Int("rounds", 5, "rounds, of which the medians count")
)

// round is what a server did in a round.
type round struct {
	elapsed time.Duration
	cpu     float64
	ops     int
}

// patience is how long a server may take for a round: then what it has done
// counts.
const patience = 5 * time.Second

// run has all connections do ops operations together, from number first on.
func run(s *server, r row, conns []*conn, op func(*conn, int) error, first, ops int) (round, error) {
	errs, done := make([]error, len(conns)), make([]int, len(conns))
	each := max(1, ops/len(conns))
	before := s.cpu()
	start := time.Now()
	var wg sync.WaitGroup
	for w, c := range conns {
		wg.Go(func() {
			for i := range each {
				if errs[w] = op(c, first+w*each+i); errs[w] != nil {
					return
				}
				if done[w]++; done[w]%16 == 0 && time.Since(start) > patience {
					return
				}
			}
		})
	}
	wg.Wait()
	got := round{time.Since(start), s.cpu() - before, 0}
	for _, n := range done {
		got.ops += n
	}
	return got, cmp.Or(errs...)
}

// result is what a row came to, by server: the medians of the rounds.
type result struct {
	row
	rate    map[string]float64 // operations a second
	ratio   map[string]float64 // to raw's in the same round
	cpu     map[string]float64 // seconds an operation
	elapsed time.Duration
}

// measure runs a row on all servers in turn.
func (r row) measure(t testing.TB, rounds int, share float64) result {
	t.Helper()
	start := time.Now()
	type contestant struct {
		*server
		conns   []*conn
		op      func(*conn, int) error
		cleanup func(*conn)
		rounds  []round
	}
	var all []*contestant
	for _, kind := range kinds {
		if !r.can(kind) || !slices.Contains(strings.Split(*servers, ","), kind) || !*whole && kind != "raw" && kind != "berth" {
			continue // a taste of the harness needs no peers, which are slow to fill
		}
		p := &contestant{server: startServer(t, kind)}
		for range r.conns {
			c, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p.conns = append(p.conns, c)
		}
		p.op, p.cleanup = r.prepare(t, p.conns[0])
		all = append(all, p)
	}
	profiled := os.Getenv(profileVariable) != ""
	if profiled {
		for _, p := range all {
			p.cmd.Process.Signal(syscall.SIGUSR1)
		}
		time.Sleep(100 * time.Millisecond)
	}
	ops := max(r.conns, int(float64(r.ops)*share))
	for n := range rounds + 1 { // the first to warm up
		if rounds > 0 {
			touchMemory(t)
		}
		for i := range all {
			p := all[(i+n)%len(all)]
			got, err := run(p.server, r, p.conns, p.op, n*ops, ops)
			if err != nil {
				t.Fatalf("%s: %s: %v", r.name, p.kind, err)
			}
			if p.cleanup != nil {
				p.cleanup(p.conns[0])
			}
			if n > 0 || rounds == 0 {
				p.rounds = append(p.rounds, got)
			}
		}
	}
	res := result{row: r, rate: map[string]float64{}, ratio: map[string]float64{}, cpu: map[string]float64{}}
	for _, p := range all {
		var rates, ratios, cpus []float64
		for n, got := range p.rounds {
			rates = append(rates, float64(got.ops)/got.elapsed.Seconds())
			of := all[0].rounds[n]
			ratios = append(ratios, float64(got.ops)/got.elapsed.Seconds()/(float64(of.ops)/of.elapsed.Seconds()))
			cpus = append(cpus, got.cpu/float64(got.ops))
		}
		res.rate[p.kind], res.ratio[p.kind], res.cpu[p.kind] = median(rates), median(ratios), median(cpus)
		if profiled {
			p.cmd.Process.Signal(syscall.SIGTERM)
			p.cmd.Wait()
		}
		p.cmd.Process.Kill()
	}
	res.elapsed = time.Since(start)
	return res
}

// touchMemory has the system find memory before a round. On a virtual machine a
// page that its host gives for the first time costs many times what it costs
// otherwise, and whoever comes first would pay for all.
func touchMemory(t testing.TB) {
	memory, err := syscall.Mmap(-1, 0, 2<<30, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	if err := syscall.Munmap(memory); err != nil {
		t.Fatal(err)
	}
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// TestTable measures the rows: without -table hardly, to see that all of them
// work.
func TestTable(t *testing.T) {
	match := regexp.MustCompile(*only)
	var out strings.Builder
	head := "| work | goal |"
	line := "|---|---|"
	for _, kind := range kinds[1:] {
		head += " " + kind + " |"
		line += "---|"
	}
	out.WriteString(head + " raw | CPU, berth to raw |\n" + line + "---|---|\n")
	for _, r := range rows {
		if !match.MatchString(r.name) {
			continue
		}
		if !*whole && (strings.Contains(r.name, "256") || strings.Contains(r.name, ",000") || strings.Contains(r.name, "beside")) {
			continue
		}
		n, share := *rounds, 1.0
		if !*whole {
			n, share = 0, 0.01
		}
		res := r.measure(t, n, share)
		text := fmt.Sprintf("| %s | %.2f |", r.name, r.goal)
		for _, kind := range kinds[1:] {
			if ratio, ok := res.ratio[kind]; ok {
				text += fmt.Sprintf(" %.2f |", ratio)
			} else {
				text += " – |"
			}
		}
		rate := fmt.Sprintf("%.0f/s", res.rate["raw"])
		if r.bytes >= mib {
			rate = fmt.Sprintf("%.0f MB/s", res.rate["raw"]*float64(r.bytes)/1e6)
		}
		processor := "–"
		if res.cpu["raw"] > 0 {
			processor = fmt.Sprintf("%.2f", res.cpu["berth"]/res.cpu["raw"])
			if r.bytes >= mib {
				gb := float64(r.bytes) / 1e9
				processor += fmt.Sprintf(" (%.2f to %.2f s/GB)", res.cpu["berth"]/gb, res.cpu["raw"]/gb)
			}
		}
		out.WriteString(text + " " + rate + " | " + processor + " |\n")
		t.Logf("%s %s | %s (%v)", text, rate, processor, res.elapsed.Round(time.Millisecond))
	}
	for _, more := range []func(testing.TB) string{memory, growth, scaling, inProcess} {
		if *only == "" || match.MatchString("more") {
			text := more(t)
			t.Log(text)
			out.WriteString("\n" + text)
		}
	}
	if *write != "" {
		if err := os.WriteFile(*write, []byte(fmt.Sprintf(page0, time.Now().UTC().Format(time.DateOnly), machine(), versions(), *rounds, out.String())), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const page0 = `# Benchmarks

Rates as shares of raw's: a bare net/http handler that hashes what it reads and
serves fixed bytes. Made by

` + "```sh" + `
cd interop && go test -v -timeout 60m -run TestTable ./peers -table -write ../../BENCHMARKS.md
` + "```" + `

on %s, on %s, with %s: medians of %d rounds, in each of which all take their turn.
Server and client share the machine; each server is a process of its own. More is
better, but for the processor time.

%s`

func machine() string {
	model := "an unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); m != nil {
			model = string(m[1])
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.Version())
}

// versions are those of the peers' modules.
func versions() string {
	list, err := exec.Command("go", "list", "-m", "github.com/google/go-containerregistry", "cuelabs.dev/go/oci/ociregistry", "github.com/distribution/distribution/v3").Output()
	if err != nil {
		return "unknown versions"
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(list)), "\n"), ", ")
}

// BenchmarkPeers is all rows, for benchstat.
func BenchmarkPeers(b *testing.B) {
	for _, r := range rows {
		for _, kind := range kinds {
			if !r.can(kind) {
				continue
			}
			b.Run(strings.ReplaceAll(r.name, " ", "_")+"/"+kind, func(b *testing.B) {
				s := startServer(b, kind)
				var conns []*conn
				for range r.conns {
					c, err := s.dial()
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					conns = append(conns, c)
				}
				op, cleanup := r.prepare(b, conns[0])
				b.SetBytes(r.bytes)
				b.ResetTimer()
				for done := 0; done < b.N; {
					got, err := run(s, r, conns, op, done%20_000, min(b.N-done, max(r.ops, 1)))
					if err != nil {
						b.Fatal(err)
					}
					done += got.ops
					if cleanup != nil {
						b.StopTimer()
						cleanup(conns[0])
						b.StartTimer()
					}
				}
			})
		}
	}
}
