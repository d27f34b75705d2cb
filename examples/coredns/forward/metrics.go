//go:build cgo && linux

package forward

import (
	"encoding/json"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// The module's series, under CoreDNS's names. They are of the process, not of an instance: during a reload two instances live side by side, and
// a series that is given twice makes all of /metrics an error.

type family struct {
	Name    string
	Type    string
	Help    string
	Samples []sample
}

type sample struct {
	Labels  prometheus.Labels
	Value   float64
	Buckets []struct {
		LE    float64
		Count uint64
	}
	Sum   float64
	Count uint64
}

type collector struct{}

// registerMetrics registers the one collector.
var registerMetrics = sync.OnceFunc(func() { prometheus.MustRegister(collector{}) })

// Describe says nothing beforehand: which series there are is the module's to tell.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	var families []family
	text, err := metrics()
	if err == nil {
		err = json.Unmarshal(text, &families)
	}
	if err != nil {
		log.Errorf("metrics: %v", err)
		return
	}
	for i := range families {
		for j := range families[i].Samples {
			ch <- families[i].metric(&families[i].Samples[j])
		}
	}
}

func (f *family) metric(s *sample) prometheus.Metric {
	desc := prometheus.NewDesc(f.Name, f.Help, nil, s.Labels)
	var m prometheus.Metric
	var err error
	switch f.Type {
	case "histogram":
		buckets := make(map[float64]uint64, len(s.Buckets))
		for _, bucket := range s.Buckets {
			buckets[bucket.LE] = bucket.Count
		}
		m, err = prometheus.NewConstHistogram(desc, s.Count, s.Sum, buckets)
	case "counter":
		m, err = prometheus.NewConstMetric(desc, prometheus.CounterValue, s.Value)
	default:
		m, err = prometheus.NewConstMetric(desc, prometheus.GaugeValue, s.Value)
	}
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
