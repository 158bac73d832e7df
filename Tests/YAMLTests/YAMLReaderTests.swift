import Testing
import YAML

@Suite struct YAMLReaderTests {
    /// What a text comes to, in one line: names, values, and the lines on which values stand.
    private func read(_ text: String) throws -> String { describe(try YAMLNode(parsing: Array(text.utf8))) }

    private func describe(_ node: YAMLNode) -> String {
        switch node.content {
        case .scalar(let text, let isPlain): (isPlain ? text : "'\(text)'") + "@\(node.line)"
        case .list(let elements): "[" + elements.map(describe).joined(separator: " ") + "]"
        case .map(let members):
            "{" + members.map { "\($0.name)@\($0.line)=\(describe($0.value))" }.joined(separator: " ") + "}"
        }
    }

    private func failure(_ text: String) -> YAMLError? {
        do {
            _ = try YAMLNode(parsing: Array(text.utf8))
            return nil
        } catch { return error }
    }

    @Test func valuesHaveLines() throws {
        #expect(try read("a: 1\nb:\n  - x\n  - 'y'\nc: {d: e}\n") == "{a@1=1@1 b@2=[x@3 'y'@4] c@5={d@5=e@5}}")
        #expect(try read("text: |\n  one\n  two\n") == "{text@1='one\ntwo\n'@1}")
        #expect(try read("empty:\n") == "{empty@1=@1}")
    }

    @Test func aliasesAreFollowed() throws {
        #expect(try read("a: &x {m: 1G}\nb: *x\n") == "{a@1={m@1=1G@1} b@2={m@1=1G@1}}")
        #expect(
            try read("a: &x {m: 1, n: 2}\nb:\n  <<: *x\n  m: 3\n") == "{a@1={m@1=1@1 n@1=2@1} b@2={m@4=3@4 n@1=2@1}}")
        #expect(failure("b: *x\n") == YAMLError(line: 1, problem: "there is no anchor '&x' before this"))
        #expect(failure("b:\n  <<: 3\n")?.line == 2)
    }

    @Test func whatIsWrongHasALine() {
        #expect(failure("") == YAMLError(line: 1, problem: "the file is empty"))
        #expect(failure("a: 1\na: 2\n") == YAMLError(line: 2, problem: "'a' is here for the second time; leave one"))
        #expect(failure("a: 1\n---\nb: 2\n")?.problem == "a second document begins here; leave one")
        #expect(failure("a: 1\nb: [1, 2\nc: 3\n")?.line == 3)
        #expect(failure("a: 1\n\tb: 2\n")?.line == 2)
        #expect(failure("? [a, b]\n: c\n")?.line == 1)
        #expect(failure(String(repeating: "[", count: 1000))?.line == 1)
        let bytes = Array("a: 1\nb: ".utf8) + [0xFF, 0xFE] + Array("\n".utf8)
        #expect(throws: YAMLError.self) { try YAMLNode(parsing: bytes) }
    }

    /// A text whose aliases would be 10 to the 9th scalars stays a small tree that shares its parts.
    @Test func manyLaughsAreFew() throws {
        var text = "a0: &a0 [x]\n"
        for level in 1...9 {
            text +=
                "a\(level): &a\(level) [" + Array(repeating: "*a\(level - 1)", count: 10).joined(separator: ",") + "]\n"
        }
        guard case .map(let members) = try YAMLNode(parsing: Array(text.utf8)).content else {
            Issue.record("this is no map")
            return
        }
        #expect(members.count == 10)
    }

    @Test func noiseEndsNothing() {
        var random = SystemRandomNumberGenerator()
        let good = Array(
            "machines:\n  web: &w {image: debian, publish: ['8080:80']}\n  db:\n    <<: *w\n    env: {A: \"b\"}\n".utf8)
        for _ in 0..<2000 {
            var bytes = good
            for _ in 0...3 {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            do { _ = try YAMLNode(parsing: bytes) } catch { #expect(error.line >= 1, "\(bytes)") }
        }
    }
}
