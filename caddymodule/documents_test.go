package caddymodule

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sse-guard/sse-guard/caddymodule/reason"
)

var update = flag.Bool("update", false, "write what the tables of options, placeholders, reasons and metrics say into README and the comments")

// documents are the parts of files that are written from the tables of options,
// placeholders, reasons and metrics. What is between begin and end is theirs.
var documents = map[string]struct {
	file, begin, end string
	want             func() string
}{
	"README, options": {
		"../README.md", "<!-- options -->\n\n", "\n<!-- end -->\n",
		func() string { return optionRows(options) },
	},
	"README, options of jwt": {
		"../README.md", "<!-- options of jwt -->\n\n", "\n<!-- end -->\n",
		func() string { return optionRows(jwtOptions) },
	},
	"README, options of webhook": {
		"../README.md", "<!-- options of webhook -->\n\n", "\n<!-- end -->\n",
		func() string { return optionRows(webhookOptions) },
	},
	"README, options of sse_guard_status": {
		"../README.md", "<!-- options of sse_guard_status -->\n\n", "\n<!-- end -->\n",
		func() string { return optionRows(statusOptions) },
	},
	"comment over UnmarshalCaddyfile of sse_guard_status": {
		"status.go", "//\tsse_guard_status [<matcher>] {\n", "//\t}\n",
		func() string { return syntaxLines(statusOptions, "//\t    ") },
	},
	"README, options of registry redis": {
		"../README.md", "<!-- options of registry redis -->\n\n", "\n<!-- end -->\n",
		func() string { return optionRows(redisOptions) },
	},
	"comment over UnmarshalCaddyfile of registry redis": {
		"redis.go", "//\tregistry redis {\n", "//\t}\n",
		func() string { return syntaxLines(redisOptions, "//\t    ") },
	},
	"README, placeholders": {
		"../README.md", "<!-- placeholders -->\n\n", "\n<!-- end -->\n",
		func() string {
			return "| placeholder | meaning |\n| --- | --- |\n" + placeholderRows("| `{%s}` | %s |\n")
		},
	},
	"README, metrics": {
		"../README.md", "<!-- metrics -->\n\n", "\n<!-- end -->\n",
		metricRows,
	},
	"README, reasons": {
		"../README.md", "<!-- reasons -->\n\n", "\n<!-- end -->\n",
		reasonRows,
	},
	"comment over Handler": {
		"module.go", "// Placeholder | Description\n// ------------|-------------\n", "type Handler struct {\n",
		func() string { return placeholderRows("// `{%s}` | %s\n") },
	},
	"comment over UnmarshalCaddyfile": {
		"caddyfile.go", "//\tsse_guard [<matcher>] {\n", "//\t}\n",
		func() string { return syntaxLines(options, "//\t    ") },
	},
}

// To mend what this test finds, change the table, then run
// go test ./caddymodule -run TestDocuments -update.
func TestDocuments_SayWhatTheTablesSay(t *testing.T) {
	for name, d := range documents {
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(d.file)
			require.NoError(t, err)
			before, rest, found := bytes.Cut(content, []byte(d.begin))
			require.True(t, found, "%s has no line %q", d.file, d.begin)
			have, after, found := bytes.Cut(rest, []byte(d.end))
			require.True(t, found, "%s has no line %q behind %q", d.file, d.end, d.begin)
			if *update {
				written := slices.Concat(before, []byte(d.begin), []byte(d.want()), []byte(d.end), after)
				require.NoError(t, os.WriteFile(d.file, written, 0o600))
				return
			}
			require.Equal(t, d.want(), string(have), "%s; go test ./caddymodule -run TestDocuments -update writes it", d.file)
		})
	}
}

// optionRows is the table of options in README.
func optionRows[T any](options []option[T]) string {
	var b strings.Builder
	b.WriteString("| option | default | meaning |\n| --- | --- | --- |\n")
	for _, o := range options {
		doc := o.doc
		if o.repeats {
			doc += " May be repeated."
		}
		cells := []string{"`" + o.usage() + "`", o.defaultDoc(), doc}
		for i := range cells {
			cells[i] = strings.ReplaceAll(cells[i], "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}

// defaultDoc is what documents say the option's default is.
func (o option[T]) defaultDoc() string {
	if o.defDoc != "" {
		return o.defDoc
	}
	return "`" + strings.ReplaceAll(o.def, "\n", "`, `") + "`"
}

// syntaxLines are the options as they are written in a Caddyfile, each behind
// indent. The syntax of those with a name of usual length is aligned.
func syntaxLines[T any](options []option[T], indent string) string {
	width := 0
	for _, o := range options {
		width = max(width, len(o.name))
	}
	var b strings.Builder
	for _, o := range options {
		if o.name == "jwt" {
			fmt.Fprintf(&b, "%sjwt {\n%s%s}\n", indent, syntaxLines(jwtOptions, indent+"    "), indent)
			continue
		}
		if o.name == "webhook" {
			fmt.Fprintf(&b, "%s%-*s <url> {  # repeatable\n%s%s}\n", indent, width, o.name, syntaxLines(webhookOptions, indent+"    "), indent)
			continue
		}
		line := fmt.Sprintf("%s%-*s %s", indent, width, o.name, o.syntax)
		if o.repeats {
			line += "  # repeatable"
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// reasonRows is the table in README of what each ending means to a client.
func reasonRows() string {
	var b strings.Builder
	b.WriteString("| reason | event | the response is | the client may come back |\n| --- | --- | --- | --- |\n")
	for _, r := range reason.All() {
		m := r.Meaning()
		told, ends := "none", "finished"
		switch {
		case m.Event():
			told = "`" + m.Code + "`"
		case m.Return != reason.Untold:
			told = "none; a `retry`"
		}
		if m.Cut {
			ends = "cut (`come_back`)"
		}
		fmt.Fprintf(&b, "| `%s`: %s | %s | %s | %s |\n", r, m.Why, told, ends, m.Back)
	}
	return b.String()
}

// metricRows is the table in README of what Caddy's metrics show.
func metricRows() string {
	var b strings.Builder
	b.WriteString("| metric | type | meaning |\n| --- | --- | --- |\n")
	for _, m := range metrics {
		name, help := m.fullName()+"{"+join(m.labels(), ",")+"}", m.help
		if m.label != "" {
			help += " `" + m.label + "`: `" + strings.Join(m.values, "`, `") + "`."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, m.kind, help)
	}
	return b.String()
}

func placeholderRows(format string) string {
	var b strings.Builder
	for _, p := range guardPlaceholders {
		fmt.Fprintf(&b, format, p.name, p.doc)
	}
	return b.String()
}

// alternatives is the syntax of an option that is one of several words.
var alternatives = regexp.MustCompile(`^[a-z]+(\|[a-z]+)+$`)

// Every JSON field is an option of the Caddyfile, and the other way round.
func TestDocuments_EveryFieldIsAnOption(t *testing.T) {
	fields := fieldComments(t, "module.go", "Handler")
	delete(fields, "defined_at") // the adapter sets it
	require.ElementsMatch(t, slices.Collect(maps.Keys(fields)), allFields(options))
	require.ElementsMatch(t, slices.Collect(maps.Keys(fieldComments(t, "jwt.go", "JWT"))), allFields(jwtOptions))
	fields = fieldComments(t, "hooks.go", "Webhook")
	delete(fields, "url") // the option's argument
	require.ElementsMatch(t, slices.Collect(maps.Keys(fields)), allFields(webhookOptions))
	require.ElementsMatch(t, slices.Collect(maps.Keys(fieldComments(t, "redis.go", "Redis"))), allFields(redisOptions))
	fields = fieldComments(t, "status.go", "Status")
	delete(fields, "defined_at") // the adapter sets it
	require.ElementsMatch(t, slices.Collect(maps.Keys(fields)), allFields(statusOptions))
}

// The fields' comments become the documentation on Caddy's website.
func TestDocuments_FieldCommentsNameTheDefault(t *testing.T) {
	requireDefaults(t, options, fieldComments(t, "module.go", "Handler"))
	requireDefaults(t, jwtOptions, fieldComments(t, "jwt.go", "JWT"))
	requireDefaults(t, webhookOptions, fieldComments(t, "hooks.go", "Webhook"))
	requireDefaults(t, redisOptions, fieldComments(t, "redis.go", "Redis"))
	requireDefaults(t, statusOptions, fieldComments(t, "status.go", "Status"))
}

func requireDefaults[T any](t *testing.T, options []option[T], comments map[string]string) {
	t.Helper()
	for _, o := range options {
		fields, defaults := o.jsonFields(), []string{o.defaultDoc()}
		if len(fields) > 1 { // an argument for each
			defaults = nil
			for arg := range strings.FieldsSeq(o.def) {
				defaults = append(defaults, "`"+arg+"`")
			}
			require.Len(t, defaults, len(fields), o.name)
		}
		for i, field := range fields {
			if alternatives.MatchString(o.syntax) {
				for word := range strings.SplitSeq(o.syntax, "|") {
					require.Contains(t, comments[field], "`"+word+"`", "the comment of field %s", field)
				}
			}
			pattern := `Default: ` + regexp.QuoteMeta(defaults[i]) + `[.,:;]`
			require.Regexp(t, pattern, comments[field], "the comment of field %s", field)
		}
	}
}

func TestDocuments_FieldCommentNamesTheReasons(t *testing.T) {
	comment := fieldComments(t, "module.go", "Handler")["events"]
	require.Contains(t, comment, "`"+join(renamable, "`, `")+"`")
	require.Contains(t, fieldComments(t, "module.go", "Handler")["messages"], "by the same reasons")
}

func allFields[T any](options []option[T]) (fields []string) {
	for _, o := range options {
		fields = append(fields, o.jsonFields()...)
	}
	return fields
}

// jsonFields are the names of the JSON fields that hold the option.
func (o option[T]) jsonFields() []string {
	if len(o.fields) == 0 {
		return []string{o.name}
	}
	return o.fields
}

// fieldComments returns the comments of a struct's JSON fields, each in one line.
func fieldComments(t *testing.T, file, name string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	require.NoError(t, err)
	comments := make(map[string]string)
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			if field.Tag == nil {
				continue
			}
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json")
			json, _, _ := strings.Cut(tag, ",")
			comments[json] = strings.Join(strings.Fields(field.Doc.Text()), " ")
		}
		return false
	})
	require.NotEmpty(t, comments, "%s has no struct %s with JSON fields", file, name)
	return comments
}

// exampleLine is one option of an sse_guard block in Caddyfile.example.
type exampleLine struct {
	number int // of the line
	owner  string
	name   string
	args   []string
}

// wordsOf splits a line as a Caddyfile does: quoted text is one word, and a comment
// has none.
func wordsOf(t *testing.T, line string) (words []string) {
	t.Helper()
	if line == "" {
		return nil
	}
	tokens, err := caddyfile.Tokenize([]byte(line), "Caddyfile.example")
	require.NoError(t, err)
	for _, token := range tokens {
		words = append(words, token.Text)
	}
	return words
}

// exampleLines returns the options of each sse_guard block in Caddyfile.example, also
// those that are commented out, which stand behind "#   ".
func exampleLines(t *testing.T) (blocks [][]exampleLine) {
	t.Helper()
	content, err := os.ReadFile("../Caddyfile.example")
	require.NoError(t, err)
	var open []string // the directives and options whose blocks a line is in
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = strings.TrimPrefix(strings.TrimSpace(line), "#   ")
		words := wordsOf(t, line)
		guard := slices.Index(open, "sse_guard")
		switch {
		case len(words) == 0:
			continue
		case words[0] == "}":
			open = open[:len(open)-1]
			continue
		case guard >= 0:
			last := len(blocks) - 1
			args := slices.DeleteFunc(slices.Clone(words[1:]), func(word string) bool { return word == "{" })
			blocks[last] = append(blocks[last], exampleLine{number, open[len(open)-1], words[0], args})
		}
		if words[len(words)-1] == "{" {
			open = append(open, words[0])
			if words[0] == "sse_guard" {
				blocks = append(blocks, nil)
			}
		}
	}
	return blocks
}

func TestExample_ShowsEveryOptionAsItIsWritten(t *testing.T) {
	shown := make(map[string]bool)
	for _, block := range exampleLines(t) {
		for _, line := range block {
			shown[line.owner+" "+line.name] = true
			switch line.owner {
			case "jwt":
				requireShape(t, jwtOptions, line, new(JWT))
			case "webhook":
				requireShape(t, webhookOptions, line, new(Webhook))
			case "registry":
				requireShape(t, redisOptions, line, new(Redis))
			default:
				requireShape(t, options, line, new(Handler))
			}
		}
	}
	for _, o := range options {
		require.True(t, shown["sse_guard "+o.name], "Caddyfile.example does not show: %s", o.usage())
	}
	for _, o := range webhookOptions {
		require.True(t, shown["webhook "+o.name], "Caddyfile.example does not show, in the block of webhook: %s", o.usage())
	}
	for _, o := range jwtOptions {
		require.True(t, shown["jwt "+o.name], "Caddyfile.example does not show, in the block of jwt: %s", o.usage())
	}
	for _, o := range redisOptions {
		require.True(t, shown["registry "+o.name], "Caddyfile.example does not show, in the block of registry redis: %s", o.usage())
	}
}

// requireShape is for a line that an option must be able to read.
func requireShape[T any](t *testing.T, options []option[T], line exampleLine, target T) {
	t.Helper()
	o, ok := optionNamed(options, line.name)
	require.True(t, ok, "Caddyfile.example:%d: %s is no option of %s", line.number, line.name, line.owner)
	least, most := arity(o.syntax)
	require.True(t, len(line.args) >= least && (most < 0 || len(line.args) <= most), "Caddyfile.example:%d is not: %s", line.number, o.usage())
	if o.block != nil {
		return
	}
	require.NoError(t, o.parse(target, line.args), "Caddyfile.example:%d", line.number)
	if o.validate != nil {
		require.NoError(t, o.validate(target), "Caddyfile.example:%d", line.number)
	}
}

// What the documents show starts, and gives no cause for a warning.
func TestDocuments_CaddyfilesStart(t *testing.T) {
	t.Setenv("JWT_SECRET", "0123456789abcdef0123456789abcdef")
	t.Setenv("REDIS_USERNAME", "sse_guard")
	t.Setenv("REDIS_PASSWORD", "a password")
	t.Setenv("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef")
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	example, err := os.ReadFile("../Caddyfile.example")
	require.NoError(t, err)
	files := [][]byte{example}
	for _, block := range regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllSubmatch(readme, -1) {
		files = append(files, block[1])
	}
	require.Greater(t, len(files), 10)
	for _, file := range files {
		core, logs := observer.New(zap.WarnLevel)
		found, pages := walkThrough(httpAppOf(t, string(file)))
		require.NotEmpty(t, found)
		for page, mounted := range pages {
			require.NoError(t, page.check(mounted), "%s", file)
		}
		for _, p := range found {
			(&App{logger: zap.New(core)}).warnOf(p)
			require.False(t, p.guard.isConstantKey(), "%s", file)
		}
		(&App{logger: zap.New(core)}).warnOfLogouts(found)
		require.Empty(t, logs.All(), "%s", file)
		require.NoError(t, checkZones(found), "%s", file)
	}
}

// README's receiver of a webhook is the one that end-to-end tests post to.
func TestDocuments_TheReceiverIsTheTestedOne(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	tested, err := os.ReadFile("../testdata/fastapi/hooks.py")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(tested), "\n\n") // behind its docstring
	require.True(t, found)
	require.Contains(t, string(readme), "```python\n"+code+"```\n")
}

// Where the example first shows an option, it shows the default.
func TestExample_ShowsTheDefaults(t *testing.T) {
	blocks := exampleLines(t)
	for _, o := range options {
		if o.def == "" {
			continue
		}
		isOption := func(line exampleLine) bool { return line.name == o.name }
		first := slices.IndexFunc(blocks, func(block []exampleLine) bool { return slices.ContainsFunc(block, isOption) })
		require.GreaterOrEqual(t, first, 0, o.name)
		var lines []string
		for _, line := range blocks[first] {
			if isOption(line) {
				lines = append(lines, strings.Join(line.args, " "))
			}
		}
		require.Equal(t, o.def, strings.Join(lines, "\n"), "option %s in Caddyfile.example", o.name)
	}
}
