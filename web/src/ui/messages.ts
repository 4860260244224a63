/** Every failure in words: what happened, and what the reader can do. Codes: wire/problem.ts and internal/problem. */

export interface Message {
  title: string;
  hint: string;
}

export type Role = 'publish' | 'play';

const SHARED: Record<string, Message> = {
  unreachable: { title: 'The server is away', hint: 'Check your network connection. This page tries again by itself.' },
  no_media: { title: 'Media can’t get through', hint: 'The server answers, but a firewall or VPN on the way may block its media port.' },
  insecure_page: { title: 'This page is not secure', hint: 'Browsers only give out the camera on https:// pages and on localhost. Open this page with https://.' },
  unsupported_browser: { title: 'This browser can’t do WebRTC', hint: 'Use a current Chrome, Edge, Firefox or Safari.' },
  page_error: { title: 'Something went wrong on this page', hint: 'Reload the page and try again.' },
  bad_request: { title: 'The server did not understand this page', hint: 'Reload the page; it may be older than the server.' },
  bad_name: { title: 'That name is not allowed', hint: 'Use letters, digits, dash, underscore and dot, at most 128 characters.' },
  bad_sdp: { title: 'Browser and server can’t agree', hint: 'Try a current version of Chrome, Edge, Firefox or Safari.' },
  bad_candidate: { title: 'The server refused a network path', hint: 'Reload the page and try again.' },
  forbidden: { title: 'You are not allowed here', hint: 'The link may have expired or been revoked. Ask for a new one.' },
  not_found: { title: 'There is nothing at this address', hint: 'Check the address of this page.' },
  unknown_app: { title: 'There is no such application', hint: 'Check the first part of the address.' },
  no_session: { title: 'The session is over', hint: 'The server ended it. This page starts a new one.' },
  no_layer: { title: 'This quality is gone', hint: 'The stream has it no longer. Choose another.' },
  method_not_allowed: { title: 'The server does not offer this', hint: 'It may be set up without WebRTC.' },
  stream_in_use: { title: 'Somebody else is live with this name', hint: 'Choose another stream name, or stop the other publisher.' },
  wrong_etag: { title: 'The session has changed', hint: 'This page starts a new one.' },
  need_etag: { title: 'The server did not understand this page', hint: 'Reload the page; it may be older than the server.' },
  too_large: { title: 'The request is too large', hint: 'Reload the page and try again.' },
  wrong_media_type: { title: 'The server did not understand this page', hint: 'Reload the page; it may be older than the server.' },
  too_many_requests: { title: 'Too many attempts', hint: 'The server asks for a pause. This page tries again in a moment.' },
  internal: { title: 'Something went wrong on the server', hint: 'This page tries again by itself.' },
  node_full: { title: 'The server is full', hint: 'There is no room right now. This page tries again in a moment.' },
  no_backup: { title: 'There is no second server for a backup', hint: 'A backup needs another origin than the one that has the stream.' },
  draining: { title: 'The server is about to stop', hint: 'This page moves to another one.' },
  no_node: { title: 'No server is free', hint: 'None can take this right now. This page tries again in a moment.' },
  origin_unreachable: { title: 'The stream can’t be reached', hint: 'The server that has it does not answer. This page tries again by itself.' },
  user_blocked: { title: 'You have been blocked', hint: 'Whoever runs this service can let you in again.' },
  too_many_sessions: { title: 'You are here already', hint: 'Close it in other windows and on other devices, then try again.' },
  viewer_limit: { title: 'The stream is full', hint: 'It has as many viewers as it may. Try again later.' },
  registry_unavailable: { title: 'The server can’t check that right now', hint: 'This page tries again in a moment.' },
  access_hook_unavailable: { title: 'The server can’t check that right now', hint: 'This page tries again in a moment.' },
  bad_credentials: { title: 'Name or password is wrong', hint: 'Check both, and try again.' },
  bad_link: { title: 'This link can’t be used', hint: 'It was used before, or has expired. Ask for a new one.' },
  bad_csrf_token: { title: 'This page is too old', hint: 'Reload it and try again.' },
  already_exists: { title: 'There is one with that name', hint: 'Choose another name.' },
  conflict: { title: 'Somebody else has changed this', hint: 'Reload the page to see how it is now.' },
  last_administrator: { title: 'There must be an administrator', hint: 'Make somebody else one first.' },
  invalid: { title: 'A value is not allowed', hint: 'Check what you entered.' },
  weak_password: { title: 'This password is too easy to guess', hint: 'Choose a longer one.' },
  timeout: { title: 'The server took too long', hint: 'This page tries again by itself.' },
};

const PUBLISH: Record<string, Message> = {
  unauthorized: { title: 'You are not authorised to publish', hint: 'Open this page with a valid link: it ends in ?token=…' },
  stream_offline: { title: 'The stream is not live', hint: 'Start again.' },
  no_codec: { title: 'No video format in common', hint: 'The server takes none of the formats this browser can send.' },
  no_permission: { title: 'Camera or microphone is blocked', hint: 'Allow both for this page: the icon in the address bar, then start again.' },
  no_camera: { title: 'No camera found', hint: 'Connect one, share your screen, or choose “No camera”.' },
  no_microphone: { title: 'No microphone found', hint: 'Connect one, or choose “No microphone”.' },
  nothing_to_send: { title: 'Nothing to send', hint: 'Choose a camera, a microphone or a screen first.' },
  device_busy: { title: 'Camera or microphone is busy', hint: 'Another program is using it. Close that program, or choose another device.' },
  screen_refused: { title: 'The screen was not shared', hint: 'Choose a screen or window in the browser’s dialog. On macOS, allow it in System Settings too.' },
  unreachable: { title: 'The server is away', hint: 'Check your network connection, then start again.' },
  node_full: { title: 'The server is full', hint: 'There is no room for another publisher right now. Try again in a moment.' },
  no_node: { title: 'No server is free', hint: 'None can take another publisher right now. Try again in a moment.' },
};

const PLAY: Record<string, Message> = {
  unauthorized: { title: 'You are not authorised to watch', hint: 'Open this page with a valid link: it ends in ?token=…' },
  stream_offline: { title: 'The stream is not live yet', hint: 'It starts here by itself.' },
  no_codec: { title: 'This browser can’t play the stream', hint: 'It lacks the stream’s video or audio format. Try another browser.' },
};

export function messageFor(code: string, role: Role): Message {
  const own = role === 'publish' ? PUBLISH : PLAY;
  return own[code] ?? SHARED[code] ?? { title: 'It did not work', hint: `The server said “${code}”. Try again in a moment.` };
}
