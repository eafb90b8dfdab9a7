// kstatus prints the kstatus of the object on standard input (JSON) as "<status>\t<message>".
//
// The status is computed by the package that Flux and others use, so the tests of the resources ask
// the real thing and not an imitation of it.
package main

import (
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	object := &unstructured.Unstructured{}
	input, err := io.ReadAll(os.Stdin)
	if err == nil {
		// The package's own decoder: encoding/json would make every number a float, which kstatus refuses.
		err = object.UnmarshalJSON(input)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kstatus: standard input is not a JSON object:", err)
		os.Exit(2)
	}
	result, err := status.Compute(object)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
	fmt.Printf("%s\t%s\n", result.Status, result.Message)
}
