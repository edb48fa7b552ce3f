// Command openai is OpenAI's Go SDK.
package main

import (
	"context"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/sse-guard/sse-guard/testdata/compat/go/compat"
)

func main() {
	client := openai.NewClient(option.WithBaseURL(compat.URL+"/v1/plain"), option.WithAPIKey(compat.Token), option.WithHeader("X-Instance", compat.N))
	compat.Run(func(ctx context.Context) error {
		stream := client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
			Model:    "m",
			Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
		})
		for stream.Next() {
			if chunk := stream.Current(); len(chunk.Choices) > 0 {
				compat.Event("", chunk.Choices[0].Delta.Content, "")
			}
		}
		return stream.Err()
	})
}
