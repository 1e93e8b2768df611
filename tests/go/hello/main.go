// Command hello has no HTTP in it.
package main

func main() { println("hello") }
