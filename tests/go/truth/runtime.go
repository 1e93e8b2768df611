package main

import (
	"bytes"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"strings"
)

// functionsOfRuntime reads the table that the runtime itself uses, which stripping leaves in place.
// It is null where this file does not tell from which address the table counts.
func functionsOfRuntime(file *elf.File, wanted map[string]bool) (Ranges, error) {
	table, address := functionTable(file)
	if table == nil {
		return nil, nil
	}
	const textStart = 8 + 2*8 // in the header, after magic and two counts (runtime/symtab.go)
	start := binary.LittleEndian.Uint64(table[textStart:])
	if start == 0 {
		start = relocated(file, address+textStart)
	}
	text := file.Section(".text")
	if start == 0 && file.Section(".init") == nil { // linked by Go alone, so .text is all Go
		start = text.Addr
	}
	if start == 0 {
		return nil, nil
	}
	table = bytes.Clone(table)
	binary.LittleEndian.PutUint64(table[textStart:], start)
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(table, start))
	if err != nil {
		return nil, err
	}
	found := Ranges{}
	for _, function := range symbols.Funcs {
		if wanted[function.Name] {
			found[function.Name] = append(found[function.Name], [2]uint64{function.Entry, function.End})
		}
	}
	return found, nil
}

// functionTable finds .gopclntab: a section of its own, or, after an external linker, a part of
// another that begins with the table's magic.
func functionTable(file *elf.File) (table []byte, address uint64) {
	for _, section := range file.Sections {
		if strings.HasSuffix(section.Name, ".gopclntab") {
			data, err := section.Data()
			if err == nil {
				return data, section.Addr
			}
		}
	}
	section := file.Section(".data.rel.ro")
	if section == nil {
		return nil, 0
	}
	data, err := section.Data()
	if err != nil {
		return nil, 0
	}
	for _, magic := range []string{"\xf1\xff\xff\xff\x00\x00\x01\x08", "\xf0\xff\xff\xff\x00\x00\x01\x08"} {
		if at := bytes.Index(data, []byte(magic)); at >= 0 {
			return data[at:], section.Addr + uint64(at)
		}
	}
	return nil, 0
}

// relocated is the value that the loader of a position-independent executable writes at an
// address (R_X86_64_RELATIVE), with the executable at address 0.
func relocated(file *elf.File, address uint64) uint64 {
	for _, section := range file.Sections {
		if section.Type != elf.SHT_RELA {
			continue
		}
		data, err := section.Data()
		if err != nil {
			continue
		}
		for ; len(data) >= 24; data = data[24:] {
			if binary.LittleEndian.Uint64(data) == address {
				return binary.LittleEndian.Uint64(data[16:])
			}
		}
	}
	return 0
}
