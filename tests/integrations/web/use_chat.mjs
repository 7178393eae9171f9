// What `useChat` is made of, without React: it talks to the address it is given and prints, as one
// line of JSON, the conversation that it ends with. Commands are the texts to send; "stop" stops the
// answer to the next one after its first words, "resume" goes on with an answer that is under way.
import { AbstractChat, DefaultChatTransport } from "ai";

const [api, ...commands] = process.argv.slice(2);
const state = {
  status: "ready",
  error: undefined,
  messages: [],
  pushMessage(message) { this.messages = [...this.messages, message]; },
  popMessage() { this.messages = this.messages.slice(0, -1); },
  replaceMessage(index, message) {
    this.messages = [...this.messages];
    this.messages[index] = structuredClone(message);
    if (stopping && message.parts.some((part) => part.type === "text")) {
      stopping = false;
      chat.stop();
    }
  },
  snapshot: structuredClone,
};
class Chat extends AbstractChat {}
let stopping = false;
let finished = [];
const chat = new Chat({
  id: "chat",
  state,
  transport: new DefaultChatTransport({ api }),
  onToolCall({ toolCall }) {
    const { toolName: tool, toolCallId } = toolCall;
    chat.addToolOutput({ tool, toolCallId, output: { sky: "blue" } });
  },
  onFinish: ({ finishReason, isAbort, isError }) => {
    finished.push({ finishReason, isAbort, isError });
  },
});
for (const command of commands) {
  if (command === "stop") stopping = true;
  else if (command === "resume") await chat.resumeStream();
  else if (command === "continue") await chat.sendMessage();
  else await chat.sendMessage({ text: command });
}
const { status, messages, error } = state;
console.log(JSON.stringify({ status, messages, finished, error: error?.message ?? null }));
