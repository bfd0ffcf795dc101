// SPDX-License-Identifier: Apache-2.0

//go:build linux

package compare

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
	whole   = flag.Bool("table", false, "measure in full")
	write   = flag.String("write", "", "write the table to this file")
	only    = flag.String("rows", "", "measure only the rows whose names match this regular expression")
	servers = flag.String("servers", strings.Join(kinds, ","), "the servers to measure, separated by commas; raw must be one of them")
	rounds  = flag.Int("rounds", 5, "the number of rounds; the results are their medians")
)

// round is a server's result in one round.
type round struct {
	elapsed time.Duration
	cpu     float64
	ops     int
}

// maxRound is the maximum duration of a round. When it has passed, the operations
// done so far count.
const maxRound = 5 * time.Second

// run runs ops operations, divided among the connections, starting with number
// first.
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
				if done[w]++; done[w]%16 == 0 && time.Since(start) > maxRound {
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

// result is the result of a row: the medians of the rounds, by server.
type result struct {
	row
	rate    map[string]float64 // operations per second
	ratio   map[string]float64 // of the rate to raw's in the same round
	cpu     map[string]float64 // CPU seconds per operation
	elapsed time.Duration
}

// measure measures a row on all servers in turn. share is the part of the
// operations to run.
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
		if !r.supportedBy(kind) || !slices.Contains(strings.Split(*servers, ","), kind) || !*whole && kind != "raw" && kind != "berth" {
			continue // a short run measures no other registries, which are slow to fill
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
	for n := range rounds + 1 { // the first one is a warm-up
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

// touchMemory makes the host of a virtual machine provide memory before a round.
// The first use of a page costs many times as much as later ones, so otherwise the
// first server would pay for all.
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

// TestTable measures the rows. Without -table it only checks that they work, with
// few operations.
func TestTable(t *testing.T) {
	match := regexp.MustCompile(*only)
	var out strings.Builder
	head := "| work | goal |"
	line := "|---|---|"
	for _, kind := range kinds[1:] {
		head += " " + kind + " |"
		line += "---|"
	}
	out.WriteString(head + " raw | CPU, berth/raw |\n" + line + "---|---|\n")
	for _, r := range rows {
		if !match.MatchString(r.name) {
			continue
		}
		if !*whole && (strings.Contains(r.name, "256") || strings.Contains(r.name, ",000") || strings.Contains(r.name, "stalled")) {
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
				processor += fmt.Sprintf(" (%.2f / %.2f s/GB)", res.cpu["berth"]/gb, res.cpu["raw"]/gb)
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
		old, _ := os.ReadFile(*write)
		if _, kept, _ := section(string(old), growthHeading); kept != "" {
			out.WriteString("\n" + kept)
		}
		if err := os.WriteFile(*write, []byte(fmt.Sprintf(document, time.Now().UTC().Format(time.DateOnly), machine(), versions(), *rounds, out.String())), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// document is the format of docs/benchmarks.md.
const document = `# Benchmarks

Rates relative to raw, a bare net/http handler that hashes the bytes it reads and
serves fixed bytes. More is better, except for CPU time. Server and client share the
machine; each server is a process of its own. "berth" is the library; "berth serve" is
the command with its defaults, which also writes a log to a file. Made by

<!-- not run: it takes many minutes -->
` + "```sh norun" + `
cd interop && go test -v -timeout 60m -run TestTable ./compare -table -write ../../docs/benchmarks.md
` + "```" + `

on %s, on %s, with %s: medians of %d rounds. In each round all servers take turns.

%s`

// machine describes the machine.
func machine() string {
	model := "an unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); m != nil {
			model = string(m[1])
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, %s", runtime.NumCPU(), model, runtime.GOOS, runtime.Version())
}

// versions returns the versions of the other registries' modules.
func versions() string {
	list, err := exec.Command("go", "list", "-m", "github.com/google/go-containerregistry", "cuelabs.dev/go/oci/ociregistry", "github.com/distribution/distribution/v3").Output()
	if err != nil {
		return "unknown versions"
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(list)), "\n"), ", ")
}

// BenchmarkServers measures all rows on all servers, for benchstat.
func BenchmarkServers(b *testing.B) {
	for _, r := range rows {
		for _, kind := range kinds {
			if !r.supportedBy(kind) {
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
