import Testing

/// The watchdog, as Linux's wdat_wdt drives it.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(10)))
struct WatchdogTests {
    private let patience = 120

    /// busybox's `watchdog` reloads it; killed, it leaves the guest to be reset, whose next kernel knows why.
    @Test(arguments: [("soft", LinuxGuest.kernel61), (TestEngine.all.last ?? "soft", LinuxGuest.kernel612)])
    func aDeadGuestIsReset(engine: String, kernel: String) {
        let davit = LinuxGuest.start(engine: engine, kernel: kernel, "--device", "watchdog")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type(
            "watchdog -T 2 -t 1 -F /dev/watchdog & sleep 5; echo S$(cat /sys/class/watchdog/watchdog0/bootstatus)S; kill -9 $!\n"
        )
        // Alive after more than its time.
        #expect(davit.waitFor("S0S", seconds: 60))
        #expect(davit.waitFor("davit: the guest's watchdog has expired: the machine starts over\n", seconds: 60))
        #expect(davit.waitFor("built-in shell", seconds: patience))
        davit.type("echo S$(cat /sys/class/watchdog/watchdog0/bootstatus)S; poweroff -f\n")
        // WDIOF_CARDRESET.
        #expect(davit.waitFor("S32S", seconds: 60))
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    @Test func aDeadGuestIsSwitchedOff() {
        let davit = LinuxGuest.start("--device", "watchdog,action=poweroff")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("watchdog -T 2 -t 1 -F /dev/watchdog & sleep 1; kill -9 $!\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
        #expect(davit.text.contains("davit: the guest's watchdog has expired: the machine is switched off\n"))
    }
}
