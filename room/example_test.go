package room_test

import (
	"fmt"

	"github.com/qi-realtime/ws/room"
)

// The inbox stands for the event loop's task queue.
func Example() {
	d := room.NewDirectory(room.Config[string, struct{}]{Loops: 2})
	var inbox []func()

	lobby, _ := d.GetOrCreate("lobby")
	ann, _ := lobby.Join("ann", 1)
	inbox = append(inbox, func() { lobby.InsertInLoop(ann) })
	fmt.Println("roster:", lobby.Members())

	for loop := range lobby.Loops {
		inbox = append(inbox, func() {
			for _, mem := range lobby.TableInLoop(loop) {
				fmt.Println("deliver to", mem.Value, "on loop", loop)
			}
		})
	}
	for _, task := range inbox {
		task()
	}
	// Output:
	// roster: [ann]
	// deliver to ann on loop 1
}

// Code that removes while it walks a table takes the last entry each time.
func ExampleDirectory_Delete() {
	d := room.NewDirectory(room.Config[string, struct{}]{Loops: 1})
	lobby, _ := d.GetOrCreate("lobby")
	for _, name := range []string{"ann", "bob"} {
		mem, _ := lobby.Join(name, 0)
		lobby.InsertInLoop(mem)
	}

	if r, ok := d.Delete("lobby"); ok {
		for table := r.TableInLoop(0); len(table) > 0; table = r.TableInLoop(0) {
			mem := table[len(table)-1]
			r.Leave(mem)
			r.RemoveInLoop(mem)
			fmt.Println(mem.Value, "left")
		}
	}
	// Output:
	// bob left
	// ann left
}
