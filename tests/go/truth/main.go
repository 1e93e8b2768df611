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
// that tells them, the map is null.
type Truth struct {
	Go        string             `json:"go"`
	Module    string             `json:"module"`
	Machine   string             `json:"machine"`
	Stripped  bool               `json:"stripped"`
	Functions map[string][2]uint `json:"functions"`
	Structs   map[string]Struct  `json:"structs"`
}

// Struct is a type: its size, the offsets of its fields in bytes, and the address of the type
// descriptor of a pointer to it (0 if not known).
type Struct struct {
	Size    int64            `json:"size"`
	Fields  map[string]int64 `json:"fields"`
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
		found.Functions, err = functionsOfSymbols(file, functions)
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

func functionsOfSymbols(file *elf.File, wanted map[string]bool) (map[string][2]uint, error) {
	symbols, err := file.Symbols()
	if err != nil {
		return nil, err
	}
	found := map[string][2]uint{}
	for _, symbol := range symbols {
		// The assembly of some functions is called through a wrapper that has .abi0 at the end.
		if wanted[symbol.Name] && elf.ST_TYPE(symbol.Info) == elf.STT_FUNC {
			found[symbol.Name] = [2]uint{uint(symbol.Value), uint(symbol.Value + symbol.Size)}
		}
	}
	return found, nil
}

// readStructs walks the types at the top of each compilation unit.
func readStructs(data *dwarf.Data, wanted map[string]bool) (map[string]Struct, error) {
	const runtimeType = dwarf.Attr(0x2904) // DW_AT_go_runtime_type
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
			one := Struct{Size: kind.Size(), Fields: map[string]int64{}}
			for _, field := range kind.(*dwarf.StructType).Field {
				one.Fields[field.Name] = field.ByteOffset
			}
			found[name] = one
		case entry.Tag == dwarf.TagPointerType && wanted[strings.TrimPrefix(name, "*")]:
			switch address := entry.Val(runtimeType).(type) {
			case uint64:
				pointers[name[1:]] = address
			case int64:
				pointers[name[1:]] = uint64(address)
			}
		}
		reader.SkipChildren()
	}
	for name, address := range pointers {
		if one, ok := found[name]; ok {
			one.Pointer = address
			found[name] = one
		}
	}
	return found, nil
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
