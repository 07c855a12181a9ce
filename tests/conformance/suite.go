// Runs the specs of upstream's end-to-end suite, without cloud providers, against the cluster of a kubeconfig. One line a spec goes
// to standard error as it ends; ginkgo's own account goes to standard output. The exit code is 1 if a spec failed.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"

	"github.com/onsi/ginkgo"
	"github.com/onsi/ginkgo/config"
	"github.com/onsi/ginkgo/types"
	"github.com/onsi/gomega"

	"k8s.io/kubernetes/test/e2e/framework"
	e2econfig "k8s.io/kubernetes/test/e2e/framework/config"
	"k8s.io/kubernetes/test/e2e/framework/testfiles"

	_ "k8s.io/kubernetes/test/e2e/apimachinery"
	_ "k8s.io/kubernetes/test/e2e/apps"
	_ "k8s.io/kubernetes/test/e2e/auth"
	_ "k8s.io/kubernetes/test/e2e/common"
	_ "k8s.io/kubernetes/test/e2e/instrumentation"
	_ "k8s.io/kubernetes/test/e2e/kubectl"
	_ "k8s.io/kubernetes/test/e2e/network"
	_ "k8s.io/kubernetes/test/e2e/node"
	_ "k8s.io/kubernetes/test/e2e/scheduling"
	_ "k8s.io/kubernetes/test/e2e/storage"
)

var labels = map[types.SpecState]string{
	types.SpecStatePassed: "passed", types.SpecStateFailed: "FAILED", types.SpecStatePanicked: "PANICKED", types.SpecStateTimedOut: "TIMED OUT",
}

// progress is a ginkgo reporter that prints each spec that ran with its seconds, and why it failed.
type progress struct{ number, total int }

func (p *progress) SpecSuiteWillBegin(_ config.GinkgoConfigType, suite *types.SuiteSummary) {
	p.total = suite.NumberOfSpecsThatWillBeRun
	fmt.Fprintf(os.Stderr, "%d specs\n", p.total)
}

func (p *progress) BeforeSuiteDidRun(setup *types.SetupSummary) {
	if setup.State != types.SpecStatePassed {
		fmt.Fprintf(os.Stderr, "the suite cannot begin: %s\n", setup.Failure.Message)
	}
}

func (p *progress) SpecWillRun(*types.SpecSummary) {}

func (p *progress) SpecDidComplete(spec *types.SpecSummary) {
	label, ran := labels[spec.State]
	if !ran && spec.Failure.Message == "" {
		return // left out by the focus
	}
	if !ran {
		label = "skipped"
	}
	p.number++
	fmt.Fprintf(os.Stderr, "%3d/%d %-9s %5.0f s  %s\n", p.number, p.total, label, spec.RunTime.Seconds(), strings.Join(spec.ComponentTexts[1:], " "))
	if message := strings.TrimSpace(spec.Failure.Message); message != "" {
		fmt.Fprintf(os.Stderr, "        %s\n", strings.ReplaceAll(message, "\n", "\n        "))
	}
}

func (p *progress) AfterSuiteDidRun(*types.SetupSummary) {}

func (p *progress) SpecSuiteDidEnd(suite *types.SuiteSummary) {
	fmt.Fprintf(os.Stderr, "%d passed, %d failed, %.0f minutes\n", suite.NumberOfPassedSpecs, suite.NumberOfFailedSpecs, suite.RunTime.Minutes())
}

// verdict is what ginkgo wants in place of a *testing.T.
type verdict struct{}

func (verdict) Fail() {}

func main() {
	source := flag.String("source", "", "folder of upstream's source, for the manifests that specs read")
	e2econfig.CopyFlags(e2econfig.Flags, flag.CommandLine)
	framework.RegisterCommonFlags(flag.CommandLine)
	framework.RegisterClusterFlags(flag.CommandLine)
	flag.Parse()
	testfiles.AddFileSource(testfiles.RootFileSource{Root: *source})
	framework.AfterReadingAllFlags(&framework.TestContext)
	framework.TestContext.IPFamily = "ipv4"
	rand.Seed(config.GinkgoConfig.RandomSeed)
	gomega.RegisterFailHandler(framework.Fail)
	if !ginkgo.RunSpecsWithDefaultAndCustomReporters(verdict{}, "conformance", []ginkgo.Reporter{&progress{}}) {
		os.Exit(1)
	}
}
