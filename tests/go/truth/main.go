// Command truth reads a Go executable with the Go distribution's own packages (debug/buildinfo,
// debug/elf, debug/dwarf, debug/gosym) and prints what pytraceprop's reading is held against.
//
//	truth EXE FUNCTION... < names of struct types, one a line
package main

import (
	"bufio"
	"debug/buildinfo"
	"debug/dwarf"
	"debug/elf"
	"encoding/json"
	"log"
	"os"
	"strings"
)

// Truth is one executable. Functions and structs that it has not are left out; without a table
// that tells them, the map is null. Types is the address of the first type descriptor.
type Truth struct {
	Go        string            `json:"go"`
	Module    string            `json:"module"`
	Machine   string            `json:"machine"`
	Stripped  bool              `json:"stripped"`
	Functions Ranges            `json:"functions"`
	Structs   map[string]Struct `json:"structs"`
	Types     uint64            `json:"types"`
}

// Ranges are the first address and the first one behind of each function of a name: a function that
// assembly calls has a wrapper of the same name.
type Ranges map[string][][2]uint64

// Struct is a type: its size, the offsets of its fields in bytes, and where the type descriptor of
// it and of a pointer to it are, counted from the first one (0 if not known).
type Struct struct {
	Size    int64            `json:"size"`
	Fields  map[string]int64 `json:"fields"`
	Itself  uint64           `json:"itself"`
	Pointer uint64           `json:"pointer"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("usage: truth EXE FUNCTION... < STRUCTS")
	}
	found, err := read(os.Args[1], set(os.Args[2:]), set(lines()))
	if err != nil {
		log.Fatalf("%s: %v", os.Args[1], err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func read(path string, functions, structs map[string]bool) (*Truth, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	file, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found := &Truth{Go: info.GoVersion, Module: info.Main.Path, Machine: file.Machine.String()}
	if found.Module == "" {
		found.Module = info.Path
	}
	found.Stripped = file.Section(".symtab") == nil
	if found.Stripped {
		found.Functions, err = functionsOfRuntime(file, functions)
	} else {
		found.Functions, found.Types, err = readSymbols(file, functions)
	}
	if err != nil {
		return nil, err
	}
	if data, err := file.DWARF(); err == nil && data.Reader() != nil {
		if found.Structs, err = readStructs(data, structs); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func readSymbols(file *elf.File, wanted map[string]bool) (Ranges, uint64, error) {
	symbols, err := file.Symbols()
	if err != nil {
		return nil, 0, err
	}
	found := Ranges{}
	types := uint64(0)
	for _, symbol := range symbols {
		if wanted[symbol.Name] && elf.ST_TYPE(symbol.Info) == elf.STT_FUNC {
			found[symbol.Name] = append(found[symbol.Name], [2]uint64{symbol.Value, symbol.Value + symbol.Size})
		}
		if symbol.Name == "runtime.types" {
			types = symbol.Value
		}
	}
	return found, types, nil
}

// readStructs walks the types at the top of each compilation unit.
func readStructs(data *dwarf.Data, wanted map[string]bool) (map[string]Struct, error) {
	found := map[string]Struct{}
	pointers := map[string]uint64{}
	reader := data.Reader()
	for {
		entry, err := reader.Next()
		if err != nil {
			return nil, err
		}
		if entry == nil {
			break
		}
		if entry.Tag == dwarf.TagCompileUnit {
			continue
		}
		name, _ := entry.Val(dwarf.AttrName).(string)
		switch {
		case entry.Tag == dwarf.TagStructType && wanted[name]:
			kind, err := data.Type(entry.Offset)
			if err != nil {
				return nil, err
			}
			one := Struct{Size: kind.Size(), Fields: map[string]int64{}, Itself: descriptor(entry)}
			for _, field := range kind.(*dwarf.StructType).Field {
				one.Fields[field.Name] = field.ByteOffset
			}
			found[name] = one
		case entry.Tag == dwarf.TagPointerType && wanted[strings.TrimPrefix(name, "*")]:
			pointers[name[1:]] = descriptor(entry)
		}
		reader.SkipChildren()
	}
	for name, offset := range pointers {
		if one, ok := found[name]; ok {
			one.Pointer = offset
			found[name] = one
		}
	}
	return found, nil
}

// descriptor is what DW_AT_go_runtime_type says, an extension of Go's.
func descriptor(entry *dwarf.Entry) uint64 {
	switch offset := entry.Val(dwarf.Attr(0x2904)).(type) {
	case uint64:
		return offset
	case int64:
		return uint64(offset)
	}
	return 0
}

func set(list []string) map[string]bool {
	result := map[string]bool{}
	for _, entry := range list {
		result[entry] = true
	}
	return result
}

func lines() (list []string) {
	for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
		list = append(list, scanner.Text())
	}
	return list
}
