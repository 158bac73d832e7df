import DavitCommands
import Glibc

exit(DavitCommand.run(Array(CommandLine.arguments.dropFirst())))
