import MachineStore
import Testing

@Suite struct JSONTests {
    @Test(arguments: [
        #"{"a":[1,-2,true,false,null],"b":{"c":"d"}}"#, #""a\"b\\c\nd\u0001ü😀""#, "[]", "{}", "0",
        "-9223372036854775808",
    ])
    func textsComeBackAsTheyWere(text: String) throws {
        #expect(try #require(JSON(parsing: text)).description == text)
    }

    @Test func escapesAndSpaceAreUnderstood() {
        #expect(JSON(parsing: " [ \"\\u00fc\\ud83d\\ude00\\/\" , 1 ] ") == .array([.string("ü😀/"), .number(1)]))
    }

    @Test(arguments: [
        "", "{", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "tru", "\"a", "\"\\x\"", "\"\\ud83d\"", "\"\\u+123\"", "1 2",
        "99999999999999999999", "-", "\"\u{1}\"", String(repeating: "[", count: 100_000),
    ])
    func whatIsNoJSONIsRefused(text: String) { #expect(JSON(parsing: text) == nil) }

    @Test func membersAreFoundByName() {
        let json = JSON(["name": .string("web"), "pid": .number(7), "rm": .bool(true)])
        #expect(json["name"]?.text == "web")
        #expect(json["pid"]?.number == 7)
        #expect(json["rm"]?.flag == true)
        #expect(json["none"] == nil)
    }
}
