import Testing

@testable import NetBackends

@Suite struct PublishedPortTests {
    @Test func portsAreReadAsUsersWriteThem() throws {
        #expect(PublishedPort("2222:22")?.specification == "2222:22")
        #expect(PublishedPort("127.0.0.1:8080:80")?.specification == "127.0.0.1/8080:80")
        #expect(PublishedPort("tcp:1:2")?.transport == .tcp)
        let udp = try #require(PublishedPort("udp:5353:53"))
        #expect(udp.transport == .udp && udp.hostPort == 5353 && udp.guestPort == 53)
    }

    @Test(arguments: [
        "", "22", "a:b", "0:22", "22:0", "65536:1", "1:2:3:4", "x:1:2", "udp:", "999.0.0.1:1:2", "1:2,3:4",
    ])
    func whatIsNoneIsRefused(text: String) { #expect(PublishedPort(text) == nil) }
}
