// A judge for the tests: what google/pprof itself says to a file.
//
// gopprofcheck FILE...: google/pprof's own Parse + CheckValid + round trip; prints totals and flat table by leaf function.
package main

import (
	"bytes"
	"fmt"
	"os"
	"sort"

	"github.com/google/pprof/profile"
)

func main() {
	rc := 0
	for _, f := range os.Args[1:] {
		d, err := os.ReadFile(f)
		if err != nil { fmt.Println(f, err); rc = 2; continue }
		p, err := profile.ParseData(d)
		if err != nil { fmt.Printf("%s: PARSE: %v\n", f, err); rc = 1; continue }
		if err := p.CheckValid(); err != nil { fmt.Printf("%s: INVALID: %v\n", f, err); rc = 1; continue }
		var b bytes.Buffer
		if err := p.Write(&b); err != nil { fmt.Printf("%s: WRITE: %v\n", f, err); rc = 1; continue }
		q, err := profile.Parse(&b)
		if err != nil || q.String() != p.String() { fmt.Printf("%s: ROUNDTRIP: %v\n", f, err); rc = 1; continue }
		tot := make([]int64, len(p.SampleType)); flat := map[string]int64{}
		for _, s := range p.Sample {
			for i, v := range s.Value { tot[i] += v }
			if len(s.Location) > 0 {
				l := s.Location[0]; n := fmt.Sprintf("%#x", l.Address)
				if len(l.Line) > 0 && l.Line[0].Function != nil { n = l.Line[0].Function.Name }
				flat[n] += s.Value[len(s.Value)-1]
			}
		}
		fmt.Printf("%s: OK samples=%d loc=%d func=%d map=%d totals=%v\n", f, len(p.Sample), len(p.Location), len(p.Function), len(p.Mapping), tot)
		ks := []string{}; for k := range flat { ks = append(ks, k) }
		sort.Slice(ks, func(i, j int) bool { return flat[ks[i]] > flat[ks[j]] || flat[ks[i]] == flat[ks[j]] && ks[i] < ks[j] })
		for i, k := range ks { if i == 3 { break }; fmt.Printf("   %d %s\n", flat[k], k) }
	}
	os.Exit(rc)
}
