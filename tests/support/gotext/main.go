// Runs programs with Go's own text/template: a line of JSON in, {"program", "data"}, a line out.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type request struct {
	Program string         `json:"program"`
	Data    map[string]any `json:"data"`
}

func answer(asked request) map[string]string {
	functions := template.FuncMap{
		"json":     func(value any) string { text, _ := json.Marshal(value); return string(text) },
		"contains": strings.Contains,
	}
	program, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(asked.Program)
	if err != nil {
		return map[string]string{"parse": err.Error()}
	}
	var text bytes.Buffer
	if err := program.Execute(&text, asked.Data); err != nil {
		return map[string]string{"error": err.Error()}
	}
	return map[string]string{"text": text.String()}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<24)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		text, _ := json.Marshal(answer(asked))
		fmt.Println(string(text))
	}
}
