// franz-go as a client library of judged tests: BOOTSTRAP=host:port,... franz-go-judged, which is told what to do by judged_programs.py, where
// the commands are described. `franz-go-judged version` prints the library's version.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
)

// The longest line: a command to send a record of 20,000 bytes is far below.
const lineBytesMax = 1 << 20

// Commands of one client that may wait for the ones before.
const commandsMax = 10_000

type command struct {
	ID        int64      `json:"id"`
	Client    string     `json:"client"`
	Do        string     `json:"do"`
	TimeoutMs int64      `json:"timeout_ms"`
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	Key       []byte     `json:"key"`
	Value     []byte     `json:"value"`
	Headers   []header   `json:"headers"`
	Keys      []key      `json:"keys"`
	Group     string     `json:"group"`
	Topics    []string   `json:"topics"`
	Offsets   []position `json:"offsets"`
}

// Header, key and position are arrays in JSON.
type header struct {
	name    string
	content []byte
}

func (h *header) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&h.name, &h.content})
}

type key struct {
	topic     string
	partition int32
}

func (k *key) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&k.topic, &k.partition})
}

func (k key) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{k.topic, k.partition})
}

type position struct {
	key
	offset int64
}

func (p *position) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&p.topic, &p.partition, &p.offset})
}

// answers writes one answer a line; any goroutine may call.
type answers struct {
	lock sync.Mutex
	out  *json.Encoder
}

func (a *answers) give(id int64, content map[string]any) {
	content["id"] = id
	a.lock.Lock()
	defer a.lock.Unlock()
	if err := a.out.Encode(content); err != nil {
		fmt.Fprintln(os.Stderr, "no answer can be written:", err)
		os.Exit(1)
	}
}

func (a *answers) failed(id int64, why any) {
	a.give(id, map[string]any{"failed": fmt.Sprint(why)})
}

// A client obeys its commands one by one.
type client interface {
	obey(command)
}

func serve(commands <-chan command, bootstrap []string, out *answers) {
	var one client
	for told := range commands {
		if one != nil {
			one.obey(told)
			continue
		}
		made, err := newClient(told, bootstrap, out)
		if err != nil {
			out.failed(told.ID, err)
			continue
		}
		one = made
		out.give(told.ID, map[string]any{})
	}
}

func newClient(told command, bootstrap []string, out *answers) (client, error) {
	switch told.Do {
	case "producer":
		return newProducer(told, bootstrap, out)
	case "reader":
		return newReader(told, bootstrap, out)
	case "member":
		return newMember(told, bootstrap, out)
	}
	return nil, fmt.Errorf("%s before its client was made", told.Do)
}

func version() string {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if module.Path == "github.com/twmb/franz-go" {
			return module.Version
		}
	}
	return "unknown"
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "version" {
		fmt.Println(version())
		return
	}
	bootstrap := strings.Split(os.Getenv("BOOTSTRAP"), ",")
	out := &answers{out: json.NewEncoder(os.Stdout)}
	clients := map[string]chan command{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		var told command
		if err := json.Unmarshal(lines.Bytes(), &told); err != nil {
			fmt.Fprintln(os.Stderr, "not a command:", err)
			os.Exit(1)
		}
		commands := clients[told.Client]
		if commands == nil {
			commands = make(chan command, commandsMax)
			clients[told.Client] = commands
			go serve(commands, bootstrap, out)
		}
		commands <- told
	}
}
