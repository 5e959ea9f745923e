// Command use does what somebody does first with a generated client: list, create, read, and understand a refusal.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/oapi-codegen/nullable"

	"example.invalid/use/client"
)

func main() {
	ctx := context.Background()
	authorize := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("AMBIENT_TOKEN"))
		return nil
	}
	ambient, err := client.NewClientWithResponses(os.Getenv("AMBIENT_URL"), client.WithRequestEditorFn(authorize))
	check(err)

	project, err := ambient.CreateProjectWithResponse(ctx, nil, client.ProjectCreate{Name: "golang"})
	check(err)
	expect(project.JSON201 != nil && project.JSON201.Status == client.ProjectStatusActive, "a new project is active", project.Body)

	size := int64(10)
	projects, err := ambient.ListProjectsWithResponse(ctx, &client.ListProjectsParams{Size: &size})
	check(err)
	expect(projects.JSON200 != nil && len(projects.JSON200.Items) > 0, "there are projects", projects.Body)
	var first client.Project = projects.JSON200.Items[0]
	expect(first.Id != "", "an item of a list is a project", projects.Body)

	created, err := ambient.CreateSessionWithResponse(ctx, nil, client.SessionCreate{
		ProjectId: "golang",
		Name:      nullable.NewNullableWithValue("first"),
	})
	check(err)
	expect(created.JSON201 != nil, "the session is made", created.Body)

	session, err := ambient.GetSessionWithResponse(ctx, created.JSON201.Id, nil)
	check(err)
	expect(session.JSON200 != nil && session.JSON200.Name == "first", "the session is read", session.Body)
	expect(session.JSON200.Phase.IsNull(), "it was never started", session.Body)

	refused, err := ambient.GetSessionWithResponse(ctx, "2PzyKuGf4Pp1cYCmLvjkxyDiEBD", nil)
	check(err)
	expect(refused.JSON404 != nil && refused.JSON404.Code == "ambient-7", "what is not there is refused", refused.Body)
	fmt.Println("Go: projects listed, a session created and read")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func expect(holds bool, what string, answer []byte) {
	if !holds {
		log.Fatalf("not as expected: %s: %s", what, answer)
	}
}
